#include "agent/node/leftover_archiver.h"

#include <utility>

#include "agent/backup/backup_wal.h"
#include "agent/backup/wal_leftovers.h"
#include "agent/base/log.h"
#include "agent/pg/settings.h"

namespace metal::node {
namespace {

bool HasLeftovers(const observe::NodeStatus& status, const std::string& own_command) {
  const observe::ArchiveSection& archive = status.archive;
  return status.postgres.state == observe::PostgresState::kRunning &&
         status.postgres.role_observed == observe::Role::kStandby &&
         status.standby.receiver_state == "streaming" && archive.mode == "on" &&
         archive.ready_segments > 0 && status.postgres.system_identifier != 0 &&
         backup::CheckArchiving(
             {.mode = archive.mode, .command = archive.command, .library = archive.library},
             own_command)
             .ok();
}

}  // namespace

LeftoverArchiver::LeftoverArchiver(const base::AgentConfig& config,
                                   std::shared_ptr<backup::WalArchive> archive)
    : data_directory_(config.pg_data_dir),
      scratch_directory_(config.state_dir),
      archive_command_(pg::ArchiveCommand(config.wal_helper, config.wal_socket)),
      archive_(std::move(archive)) {}

LeftoverArchiver::~LeftoverArchiver() { archive_->DropEvents(); }

void LeftoverArchiver::Look(const observe::NodeStatus& status) {
  if (status.archive.time.captured_at == looked_) return;
  looked_ = status.archive.time.captured_at;
  if (!HasLeftovers(status, archive_command_)) return;
  const backup::LeftoverPlaces places{.data_directory = data_directory_,
                                      .scratch_directory = scratch_directory_,
                                      .system_identifier = status.postgres.system_identifier};
  call_.Run(
      "wal-leftovers",
      [places, archive = archive_] {
        const auto archived = backup::ArchiveLeftovers(places, *archive);
        if (!archived.ok()) {
          base::LogWarning("event=wal_leftovers message=\"{}\"",
                           std::string(archived.status().message()));
        } else if (*archived > 0) {
          base::LogInfo(
              "event=wal_leftovers archived={} message=\"not archived before this node "
              "became a standby\"",
              *archived);
        }
        return archived.ok();
      },
      absl::ZeroDuration());
}

}  // namespace metal::node
