#include "agent/backup/backup_room.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

#include "agent/backup/disk_usage.h"
#include "agent/backup/tablespace_list.h"
#include "agent/base/filesystem_room.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(1);

const BackupInfo* NewestWhole(const std::vector<BackupInfo>& earlier) {
  const auto found = std::ranges::find_if(earlier, [](const BackupInfo& each) {
    return each.state != BackupState::kDamaged && each.header.stored_bytes > 0;
  });
  return found == earlier.end() ? nullptr : &*found;
}

absl::StatusOr<uint64_t> DatabaseBytes(const std::string& data_directory) {
  std::map<uint64_t, uint64_t> bytes;
  METAL_RETURN_IF_ERROR(AddDiskUsage(data_directory, bytes));
  METAL_ASSIGN_OR_RETURN(const TablespaceList tablespaces, ListTablespaces(data_directory));
  for (const auto& [oid, location] : tablespaces) {
    // One without a location lies in the data directory.
    if (!location.empty()) METAL_RETURN_IF_ERROR(AddDiskUsage(location, bytes));
  }
  uint64_t all = 0;
  for (const auto& [device, each] : bytes) all += each;
  return all;
}

absl::Status NoSpace(absl::Status status, const std::string& path) {
  return base::WithReason(std::move(status), {"NO_SPACE", {{"path", path}}});
}

std::string Size(uint64_t bytes) { return base::ByteCount{bytes}.ToString(); }

}  // namespace

BackupRoom BackupRoomOf(const base::AgentConfig& config, stream::CodecKind codec) {
  return {.repository = config.repository_path,
          .data_directory = config.pg_data_dir,
          .read_only_at = config.disk_read_only_at,
          .compressed = codec != stream::CodecKind::kNone};
}

uint64_t ExpectedBytes(const std::vector<BackupInfo>& earlier, uint64_t database_bytes,
                       bool compressed) {
  const BackupInfo* const last = NewestWhole(earlier);
  if (last != nullptr) return last->header.stored_bytes + last->header.stored_bytes / 10;
  return compressed ? database_bytes / 2 : database_bytes;
}

absl::Status CheckBackupRoom(const BackupRoom& room, const std::vector<BackupInfo>& earlier) {
  const BackupInfo* const last = NewestWhole(earlier);
  uint64_t database = 0;
  if (last == nullptr) {
    METAL_ASSIGN_OR_RETURN(database, DatabaseBytes(room.data_directory));
  }
  const uint64_t needed = ExpectedBytes(earlier, database, room.compressed);
  METAL_ASSIGN_OR_RETURN(const base::FilesystemRoom found,
                         base::ReadFilesystemRoom(room.repository));
  const uint64_t least = base::LeastFree(found, room.read_only_at).value;
  if (found.free_bytes >= needed + least) return absl::OkStatus();
  const std::string why =
      last != nullptr ? fmt::format("{} took {}", last->label, Size(last->header.stored_bytes))
                      : fmt::format("the database has {}", Size(database));
  return NoSpace(
      base::Error(absl::StatusCode::kResourceExhausted,
                  "the repository {} has {} free; a backup needs about {} ({}), and {} are to stay "
                  "free. HINT: free space there, or metalctl backup create --ignore-free-space",
                  room.repository, Size(found.free_bytes), Size(needed), why, Size(least)),
      room.repository);
}

BackupWatch::BackupWatch(BackupRoom room, base::Clock& clock)
    : room_(std::move(room)), server_(room_.data_directory, clock), clock_(clock) {
  struct stat repository {
  }, data{};
  shared_ = stat(room_.repository.c_str(), &repository) == 0 &&
            stat(room_.data_directory.c_str(), &data) == 0 && repository.st_dev == data.st_dev;
}

absl::Status BackupWatch::Check() {
  METAL_RETURN_IF_ERROR(server_.Check());
  return CheckRoom();
}

absl::Status BackupWatch::CheckRoom() {
  const base::MonotonicTime now = clock_.Monotonic();
  if (!shared_ || (looked_ && now - *looked_ < kInterval)) return absl::OkStatus();
  looked_ = now;
  METAL_ASSIGN_OR_RETURN(const base::FilesystemRoom found,
                         base::ReadFilesystemRoom(room_.repository));
  const uint64_t least = base::LeastFree(found, room_.read_only_at).value;
  if (found.free_bytes >= least) return absl::OkStatus();
  return NoSpace(
      base::Error(absl::StatusCode::kResourceExhausted,
                  "stopped before it fills the disk of the data directory: {} has {} free, of "
                  "which {} are to stay free. HINT: a repository on another disk",
                  room_.repository, Size(found.free_bytes), Size(least)),
      room_.repository);
}

}  // namespace metal::backup
