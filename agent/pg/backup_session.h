// BackupSession: the server's side of a base backup (non-exclusive), on a primary or a standby, 13
// to 18. Source: PostgreSQL "Making a Non-Exclusive Low-Level Backup". The server ends the backup
// by itself when the connection closes, so destroying this object aborts it. Threading: one thread
// at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"
#include "agent/pg/session.h"

namespace metal::pg {

struct BackupStart {
  base::Lsn lsn;  // redo of the start checkpoint
  base::TimelineId timeline = 0;
  bool from_standby = false;
  int server_version = 0;
  uint64_t system_identifier = 0;
  uint64_t wal_segment_size = 0;
};

struct ArchiveSettings {
  bool standby = false;
  std::string mode;     // off, on, always
  std::string command;  // "(disabled)" when the mode is off
  std::string library;  // from PostgreSQL 15; empty: none
};

struct BackupStop {
  base::Lsn lsn;  // WAL is needed up to here (exclusive end); on a standby: min recovery point at
                  // the stop
  base::TimelineId timeline = 0;
  std::string backup_label;    // byte for byte as the server made it
  std::string tablespace_map;  // may be empty
};

struct BackupStartOptions {
  std::string label;
  bool fast_checkpoint = true;                 // false: spread, may take checkpoint_timeout
  absl::Duration timeout = absl::Minutes(30);  // of the start checkpoint
  std::function<bool()> cancelled = {};        // may be empty
};

class BackupSession {
 public:
  // Takes the session; Start lifts its statement_timeout.
  explicit BackupSession(std::unique_ptr<SqlSession> session);

  // How the server archives its WAL; also before Start.
  absl::StatusOr<ArchiveSettings> QueryArchiving();
  // FAILED_PRECONDITION when wal_level is minimal, or (standby) full_page_writes was off since the
  // last restartpoint.
  absl::StatusOr<BackupStart> Start(const BackupStartOptions& options);
  // Does not wait for the archive: the caller tracks it (a server-side wait has no end). On a
  // primary the server switches to a new segment, so the last one that the backup needs becomes
  // archivable at once. FAILED_PRECONDITION (STANDBY_PROMOTED) when the standby was promoted
  // meanwhile.
  absl::StatusOr<BackupStop> Stop(absl::Duration timeout);
  // Position that no valid page's LSN exceeds at this moment: insert LSN, or on a standby the
  // newest received or replayed. UNAVAILABLE when the connection is lost: then the backup is lost
  // too.
  absl::StatusOr<base::Lsn> CurrentInsertLsn(absl::Duration timeout = absl::Seconds(5));
  // Closes the connection: the server ends the backup. Idempotent.
  void Abort();

 private:
  std::unique_ptr<SqlSession> session_;
  BackupStart start_;
  bool running_ = false;
};

// The fields of a backup_label. INVALID_ARGUMENT when a required line is missing.
struct BackupLabel {
  base::Lsn start_lsn;
  std::string start_wal_file;
  base::Lsn checkpoint;
  base::TimelineId timeline = 0;
  bool from_standby = false;
  std::string start_time, label;
};
absl::StatusOr<BackupLabel> ParseBackupLabel(std::string_view text);

}  // namespace metal::pg
