#include "agent/backup/wal_history.h"

#include <fcntl.h>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {

absl::Status ProvideTimelineHistory(WalArchive& archive, uint64_t system_identifier,
                                    base::TimelineId timeline, const std::string& data_dir) {
  if (timeline <= 1) return absl::OkStatus();
  const std::string name = fmt::format("{:08X}.history", timeline);
  auto file = base::OpenFile(base::JoinPath(data_dir, "pg_wal/" + name), O_RDONLY);
  if (absl::IsNotFound(file.status())) return absl::OkStatus();
  if (!file.ok()) return file.status();
  return archive.Push(name, file->get(), system_identifier).status();
}

}  // namespace metal::backup
