// Lets through the first few events of each kind and window, and counts the rest, so that a storm
// in a log does not push everything else out of the event log.
// Threading: not thread-safe; no clock of its own.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/clock.h"

namespace metal::disk {

class LineLimiter {
 public:
  LineLimiter(int burst, absl::Duration window) : burst_(burst), window_(window) {}

  // Whether this one may be told.
  bool Admit(const std::string& key, base::MonotonicTime now) {
    Window& window = windows_[key];
    if (window.told == 0) window.start = now;
    if (window.told >= burst_) {
      ++window.left_out;
      return false;
    }
    ++window.told;
    return true;
  }

  // Kinds whose window has ended with something left out, and how much. Forgets ended windows.
  std::vector<std::pair<std::string, int64_t>> Ended(base::MonotonicTime now) {
    std::vector<std::pair<std::string, int64_t>> ended;
    std::erase_if(windows_, [&](const auto& entry) {
      if (now - entry.second.start < window_) return false;
      if (entry.second.left_out > 0) ended.emplace_back(entry.first, entry.second.left_out);
      return true;
    });
    return ended;
  }

  // When Ended has something to do; nullopt: nothing is open.
  std::optional<base::MonotonicTime> NextEnd() const {
    std::optional<base::MonotonicTime> next;
    for (const auto& [key, window] : windows_) {
      if (const auto end = window.start + window_; !next || end < *next) next = end;
    }
    return next;
  }

 private:
  struct Window {
    base::MonotonicTime start;
    int told = 0;
    int64_t left_out = 0;
  };
  const int burst_;
  const absl::Duration window_;
  std::map<std::string, Window> windows_;
};

}  // namespace metal::disk
