#include "agent/pg/read_only_file.h"

#include <unistd.h>

#include <cerrno>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/pg/settings.h"

namespace metal::pg {
namespace {

constexpr const char* kText =
    "# Written by metal-agent: the disk is full. It is removed when there is room.\n"
    "default_transaction_read_only = on\n";

}  // namespace

absl::StatusOr<bool> HasReadOnlyFile(const std::string& data_dir) {
  return base::Exists(base::JoinPath(data_dir, kReadOnlyFile));
}

absl::Status WriteReadOnlyFile(const std::string& data_dir) {
  METAL_RETURN_IF_ERROR(EnsureManagedInclude(data_dir));
  METAL_ASSIGN_OR_RETURN(const bool present, HasReadOnlyFile(data_dir));
  if (present) return absl::OkStatus();
  return base::WriteFileDurably(base::JoinPath(data_dir, kReadOnlyFile), kText, 0600);
}

absl::Status RemoveReadOnlyFile(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, kReadOnlyFile);
  if (unlink(path.c_str()) != 0) {
    return errno == ENOENT ? absl::OkStatus() : base::ErrnoStatus(errno, "remove", path);
  }
  return base::SyncDirectory(data_dir);
}

}  // namespace metal::pg
