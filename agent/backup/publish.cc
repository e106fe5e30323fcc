#include "agent/backup/publish.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {

absl::Status PublishManifest(const BackupHeader& header, const std::string& directory) {
  const std::string temporary = base::JoinPath(directory, kManifestTemporaryName);
  const std::string manifest = base::JoinPath(directory, kManifestName);
  METAL_ASSIGN_OR_RETURN(base::UniqueFd fd,
                         base::OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0640));
  METAL_RETURN_IF_ERROR(base::WriteAll(fd.get(), FormatManifest(header), temporary));
  if (fsync(fd.get()) != 0) return base::ErrnoStatus(errno, "fsync", temporary);
  METAL_RETURN_IF_ERROR(fd.Close());
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.manifest_written"));
  if (rename(temporary.c_str(), manifest.c_str()) != 0) {
    return base::ErrnoStatus(errno, "rename", temporary);
  }
  METAL_RETURN_IF_ERROR(base::FaultPoint("backup.manifest_renamed"));
  return base::SyncDirectory(directory);
}

}  // namespace metal::backup
