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

// Lines for the postgresql.auto.conf of a copy that take back what its other files, and files
// included from them, set of what steers a recovery: recovery targets, and unless the copy becomes
// a standby the commands of recovery and its delay. `settings`, those of that file itself, loses
// them altogether. The lines must stand before a wanted target: PostgreSQL refuses to start with
// two targets, and with an empty one that follows another, so only what has a value is emptied.
// Blocks on the data disk.
std::string TakeBackSteering(const std::string& directory, bool standby, pg::SettingMap& settings);

// Puts them into the directory's postgresql.auto.conf, which is read last and which
// pg_verifybackup does not look at, after TakeBackSteering. Not synced. `backup`: the label, for
// people.
absl::Status WriteRecoverySettings(const std::string& directory, const RestoreRequest& request,
                                   const std::string& backup, const pg::SettingMap& recovery);

}  // namespace metal::backup
