// LineRepeats: tells lines apart for a minute, so that each is kept once and its repeats as a
// number. At most so many different ones; what comes beyond them is not told.
// Threading: not thread-safe; no clock of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"

namespace metal::disk {

// A line of the kernel's log that the event log has no room for.
struct KernelLine {
  std::string disk, fault_class;  // "nvme0n1"; "media_error", "none"
  std::string text;
  int64_t again = 0;  // repeats of a line that was told before; 0: it is told now
};

// Must not block.
using KernelLineSink = std::function<void(const KernelLine&)>;

class LineRepeats {
 public:
  LineRepeats(size_t most, absl::Duration window) : most_(most), window_(window) {}

  // True: the first of its text since the window began. `line.again` is not looked at.
  bool IsNew(const KernelLine& line, base::MonotonicTime now) {
    if (lines_.empty()) begin_ = now;
    const Key key(line.disk, line.fault_class, line.text);
    if (const auto known = lines_.find(key); known != lines_.end()) {
      ++known->second;
      return false;
    }
    return lines_.size() < most_ && lines_.emplace(key, 0).second;
  }

  // Once the window has ended, what was repeated in it; the next line begins another one.
  std::vector<KernelLine> Ended(base::MonotonicTime now) {
    std::vector<KernelLine> repeated;
    if (lines_.empty() || now - begin_ < window_) return repeated;
    for (const auto& [key, again] : lines_) {
      const auto& [disk, fault_class, text] = key;
      if (again > 0) repeated.push_back({disk, fault_class, text, again});
    }
    lines_.clear();
    return repeated;
  }

  // When Ended has something to do; nullopt: no window is open.
  std::optional<base::MonotonicTime> NextEnd() const {
    if (lines_.empty()) return std::nullopt;
    return begin_ + window_;
  }

 private:
  using Key = std::tuple<std::string, std::string, std::string>;
  const size_t most_;
  const absl::Duration window_;
  base::MonotonicTime begin_;
  std::map<Key, int64_t> lines_;
};

}  // namespace metal::disk
