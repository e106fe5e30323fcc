#include "agent/backup/page_recheck.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/stream/page_checksum.h"

namespace metal::backup {

PageReader MakePageReader(std::string data_directory) {
  return [root = std::move(data_directory)](const std::string& path, bool direct, uint64_t offset,
                                            std::span<std::byte> page) -> absl::StatusOr<size_t> {
    const std::string full = base::JoinPath(root, path);
    auto fd = base::OpenFile(full, O_RDONLY | (direct ? O_DIRECT : 0));
    if (absl::IsNotFound(fd.status())) return 0;
    if (!fd.ok()) return fd.status();
    while (true) {
      const ssize_t n = pread(fd->get(), page.data(), page.size(), static_cast<off_t>(offset));
      if (n >= 0) return static_cast<size_t>(n);
      if (errno != EINTR) return base::ErrnoStatus(errno, "read", full);
    }
  };
}

std::string_view RecheckReason(RecheckVerdict verdict) {
  switch (verdict) {
    case RecheckVerdict::kValid:
      return "valid on re-read";
    case RecheckVerdict::kInFlight:
      return "changed on re-read";
    case RecheckVerdict::kInWindow:
      return "written during the backup";
    case RecheckVerdict::kUnchanged:
      return "checksum does not match, unchanged on re-read";
    case RecheckVerdict::kLsnAhead:
      return "checksum does not match, LSN is ahead of the server";
  }
  return "";
}

PageRechecker::PageRechecker(Options options, base::Clock& clock)
    : options_(std::move(options)), clock_(clock) {}

bool PageRechecker::TakePause() {
  const int64_t pause = absl::ToInt64Nanoseconds(options_.pause);
  if (paused_ns_.fetch_add(pause) + pause > absl::ToInt64Nanoseconds(options_.pause_budget)) {
    return false;
  }
  clock_.Sleep(options_.pause);
  return true;
}

absl::StatusOr<RecheckVerdict> PageRechecker::Check(const SuspectPage& suspect,
                                                    std::span<std::byte> page,
                                                    std::span<std::byte> scratch) {
  for (int attempt = 0;; ++attempt) {
    METAL_ASSIGN_OR_RETURN(const size_t got,
                           options_.read(suspect.path, suspect.direct, suspect.offset, scratch));
    if (got < page.size()) return RecheckVerdict::kInFlight;  // truncated or dropped meanwhile
    if (stream::VerifyPage(scratch, suspect.block) != stream::PageVerdict::kInvalid) {
      std::copy(scratch.begin(), scratch.end(), page.begin());
      return RecheckVerdict::kValid;
    }
    if (!std::equal(page.begin(), page.end(), scratch.begin())) return RecheckVerdict::kInFlight;
    if (attempt == 0) {
      // Asked after the re-read: no page that was on disk then can be ahead of this position.
      const base::Lsn page_lsn = stream::PageLsn(page);
      METAL_ASSIGN_OR_RETURN(const base::Lsn current, options_.current_lsn());
      if (page_lsn > current) return RecheckVerdict::kLsnAhead;
      if (page_lsn < options_.start_lsn) return RecheckVerdict::kUnchanged;
    }
    if (attempt >= options_.window_reads || !TakePause()) return RecheckVerdict::kInWindow;
  }
}

}  // namespace metal::backup
