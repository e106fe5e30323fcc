// The settings with which a restored copy recovers: where its WAL comes from and where replay ends.
// Threading: pure functions, but for the one that writes.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/restore.h"
#include "agent/base/config.h"
#include "agent/pg/settings.h"

namespace metal::backup {

// FAILED_PRECONDITION: neither a restore_command nor a WAL helper is configured. INVALID_ARGUMENT:
// a value that no settings file can hold.
absl::StatusOr<pg::SettingMap> RecoverySettings(const RestoreRequest& request,
                                                const base::AgentConfig& config);

// Puts them into the directory's postgresql.auto.conf, which is read last and which
// pg_verifybackup does not look at. What the other files of the copy set, or files included from
// them, that would steer its recovery is taken back there: recovery targets, and for a copy that is
// no standby the commands of recovery and its delay. Not synced. `backup`: the label, for people.
absl::Status WriteRecoverySettings(const std::string& directory, const RestoreRequest& request,
                                   const std::string& backup, const pg::SettingMap& recovery);

}  // namespace metal::backup
