#include "agent/backup/server_watch.h"

#include <utility>

#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(5);

}  // namespace

ServerWatch::ServerWatch(std::string data_directory, base::Clock& clock)
    : data_directory_(std::move(data_directory)), clock_(clock), looked_(clock.Monotonic()) {
  if (auto file = pg::ReadPostmasterPid(data_directory_); file.ok()) server_ = *file;
}

absl::Status ServerWatch::Check() {
  const base::MonotonicTime now = clock_.Monotonic();
  if (!server_ || now - looked_ < kInterval) return absl::OkStatus();
  looked_ = now;
  const auto file = pg::ReadPostmasterPid(data_directory_);
  if (!file.ok()) return absl::OkStatus();
  if (*file && (*file)->pid == server_->pid && (*file)->start_time == server_->start_time) {
    return absl::OkStatus();
  }
  return base::Error(absl::StatusCode::kAborted,
                     "PostgreSQL was stopped or restarted during the copy. HINT: take the backup "
                     "again");
}

}  // namespace metal::backup
