// Decides what a page whose checksum does not match means while the server runs: a page being
// written, or a corrupt one. Rule: read it again the same way. Bytes that changed, or now verify →
// in flight, fine. Same bytes: when the page's LSN is past the server's insert position → corrupt
// (garbage); when it lies between the backup's start and the insert position → the page was written
// during the backup and WAL replay replaces it: read on for a while, then accept; otherwise →
// corrupt. Source: research on pgBackRest #1667 and credativ/pg_checksums #6. Threading: Check from
// any codec thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/clock.h"
#include "agent/base/units.h"
#include "agent/uring/buffer_pool.h"

namespace metal::backup {

// Reads one page of a file again; how many bytes it got, 0 when the file is gone or shorter now.
using PageReader = std::function<absl::StatusOr<size_t>(
    const std::string& path, bool direct, uint64_t offset, std::span<std::byte> page)>;
// Re-reads below `data_directory`, with O_DIRECT where the first read used it.
PageReader MakePageReader(std::string data_directory);

enum class RecheckVerdict : uint8_t {
  kValid,      // verifies now; the page was replaced with what was read
  kInFlight,   // being written, or gone: WAL replay gives its contents
  kInWindow,   // stays bad, but was written after the backup's start: WAL replay gives its contents
  kUnchanged,  // corrupt: same bytes again
  kLsnAhead,   // corrupt: its LSN is ahead of the server
};
inline bool IsCorrupt(RecheckVerdict verdict) {
  return verdict == RecheckVerdict::kUnchanged || verdict == RecheckVerdict::kLsnAhead;
}
std::string_view RecheckReason(RecheckVerdict verdict);

struct SuspectPage {
  std::string path;     // relative
  bool direct = false;  // the first read bypassed the page cache
  uint64_t offset = 0;  // in its file
  base::BlockNumber block = 0;
};

class PageRechecker {
 public:
  struct Options {
    base::Lsn start_lsn;
    std::function<absl::StatusOr<base::Lsn>()> current_lsn;  // thread-safe
    PageReader read;
    absl::Duration pause = absl::Milliseconds(100);   // between re-reads of a page in the window
    int window_reads = 5;                             // re-reads of such a page
    absl::Duration pause_budget = absl::Seconds(30);  // for all pages of a backup together
  };
  PageRechecker(Options options, base::Clock& clock);

  // `page` is what was read first; replaced when a later read verifies. `scratch` is page-aligned
  // and as long as the page. An error when the re-read or the server fails.
  absl::StatusOr<RecheckVerdict> Check(const SuspectPage& suspect, std::span<std::byte> page,
                                       std::span<std::byte> scratch);

 private:
  bool TakePause();

  const Options options_;
  base::Clock& clock_;
  std::atomic<int64_t> paused_ns_{0};
};

}  // namespace metal::backup
