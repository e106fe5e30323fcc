// BackupSource: the PostgreSQL side of a base backup, a seam so that the engine is tested without a
// server. Source: PostgreSQL 13–18, "Making a Base Backup Using the Low Level API"; research:
// pg_backup_start and pg_backup_stop. Threading: Start and Stop from the operation's thread;
// CurrentLsn from any thread, also while the copy runs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/units.h"

namespace metal::backup {

struct SourceStartRequest {
  std::string label;
  bool fast_checkpoint = true;      // false: spread, may take checkpoint_timeout
  std::function<bool()> cancelled;  // polled; may be empty
};

struct SourceStart {
  uint64_t system_identifier = 0;
  int postgres_version = 0;   // server_version_num, for example 150018
  bool from_standby = false;  // pg_is_in_recovery() at the start
  base::TimelineId timeline = 0;
  base::Lsn start_lsn;  // redo position of the start checkpoint
};

// How the server archives its WAL.
struct SourceArchiving {
  bool standby = false;
  std::string mode = "off";  // archive_mode: off, on, always
  std::string command;       // archive_command
  std::string library;       // archive_library, from PostgreSQL 15; empty: none
};

struct SourceStop {
  base::TimelineId timeline = 0;
  base::Lsn stop_lsn;
  std::string backup_label;    // byte for byte
  std::string tablespace_map;  // byte for byte; empty: no file
};

class BackupSource {
 public:
  virtual ~BackupSource() = default;  // ends the backup mode when Stop was not called
  // Allowed before Start.
  virtual absl::StatusOr<SourceArchiving> Archiving() = 0;
  // Makes a checkpoint and opens the backup.
  virtual absl::StatusOr<SourceStart> Start(const SourceStartRequest& request) = 0;
  // Upper bound of every LSN that a page may carry now: the insert position, or what was received
  // on a standby.
  virtual absl::StatusOr<base::Lsn> CurrentLsn() = 0;
  // Closes the backup; does not wait for the archive.
  virtual absl::StatusOr<SourceStop> Stop() = 0;
};

}  // namespace metal::backup
