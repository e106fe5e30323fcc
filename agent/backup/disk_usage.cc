#include "agent/backup/disk_usage.h"

#include <fts.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>

#include "agent/base/status.h"

namespace metal::backup {
namespace {

struct CloseFts {
  void operator()(FTS* walk) const { fts_close(walk); }
};

}  // namespace

absl::Status AddDiskUsage(const std::string& directory, std::map<uint64_t, uint64_t>& bytes) {
  constexpr uint64_t kStatBlock = 512;
  std::string path = directory;
  char* const roots[] = {path.data(), nullptr};
  const std::unique_ptr<FTS, CloseFts> walk(fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, nullptr));
  if (walk == nullptr) return base::ErrnoStatus(errno, "walk", directory);
  errno = 0;
  while (const FTSENT* entry = fts_read(walk.get())) {
    if (entry->fts_info == FTS_ERR || entry->fts_info == FTS_DNR || entry->fts_info == FTS_NS) {
      if (entry->fts_errno == ENOENT) continue;
      return base::ErrnoStatus(entry->fts_errno, "look at", entry->fts_path);
    }
    if (entry->fts_info == FTS_DP || entry->fts_statp == nullptr) continue;
    bytes[entry->fts_statp->st_dev] +=
        static_cast<uint64_t>(entry->fts_statp->st_blocks) * kStatBlock;
  }
  return errno == 0 ? absl::OkStatus() : base::ErrnoStatus(errno, "walk", directory);
}

}  // namespace metal::backup
