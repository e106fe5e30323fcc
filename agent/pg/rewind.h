// pg_rewind: makes a data directory whose WAL went its own way a beginning of another server's.
// Source: PostgreSQL 13–18, src/bin/pg_rewind/pg_rewind.c (messages, order of its steps).
// It needs the target cleanly shut down, hint bits in the target's WAL (wal_log_hints or page
// checksums), the target's WAL back to the last checkpoint that both share, and a primary whose
// pg_control already names its present timeline. Once it has begun to copy there is no way back but
// through its end. Threading: pure functions; RunPgRewind and QueryRewindSource block.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"
#include "agent/pg/control_file.h"
#include "agent/pg/session.h"

namespace metal::pg {

// What pg_rewind said. Fields that it did not come to are 0.
struct RewindReport {
  bool required = true;  // false: it found nothing to do
  // Where the target left the common history.
  base::TimelineId diverged_timeline = 0;
  base::Lsn diverged_at;
  // The checkpoint it goes back to: the target's WAL is needed from here on.
  base::TimelineId checkpoint_timeline = 0;
  base::Lsn checkpoint;
  base::ByteCount to_copy;  // known to the MiB before it copies, to the KiB while it does
  bool began = false;       // it may have changed the target
  bool finished = false;
};

struct PgRewindOptions {
  std::string program;  // path of pg_rewind
  std::string data_dir;
  std::string conninfo;  // of the source
  bool dry_run = true;
  std::function<bool()> cancelled = {};  // a dry run alone may be cancelled
  std::function<void(base::ByteCount done, base::ByteCount total)> on_progress = {};
  // At each step that pg_rewind names ("reading source file list"); may be empty.
  std::function<void(const std::string& step)> on_step = {};
};

// Runs it to its end; no deadline ends a run that may change the target. `report` is filled also
// when it fails. FAILED_PRECONDITION with pg_rewind's own words: reason WAL_MISSING (first_missing:
// the segment of the target that it could not open) or REWIND_REFUSED. UNAVAILABLE: the source does
// not answer. RESOURCE_EXHAUSTED (NO_SPACE): the disk is full. NOT_FOUND: no such program.
absl::Status RunPgRewind(const PgRewindOptions& options, RewindReport& report);

// Takes one line of pg_rewind's standard error into account. Answers the step that it names, empty
// for another line.
std::string ReadRewindLine(std::string_view line, RewindReport& report);

// OK when pg_control of the target allows a rewind. FAILED_PRECONDITION, reason REWIND_REFUSED,
// names every prerequisite that is missing.
absl::Status CheckRewindTarget(const ControlFile& target);

// What matters about a source, asked for with SQL.
struct RewindSource {
  int version_num = 0;
  bool in_recovery = false;
  uint64_t system_identifier = 0;
  base::TimelineId timeline = 0;          // of the WAL that it writes; 0 in recovery
  base::TimelineId control_timeline = 0;  // of its last checkpoint
  base::Lsn current;                      // 0 in recovery
  bool full_page_writes = false;
  bool slot_exists = false;  // the physical slot that was asked for
  // False after a promotion until the end of its first checkpoint: pg_rewind would take the old
  // timeline for the source's.
  bool checkpointed() const { return timeline != 0 && timeline == control_timeline; }
};
absl::StatusOr<RewindSource> QueryRewindSource(SqlSession& session, const std::string& slot,
                                               absl::Duration timeout);

// Whether the source still has this file in pg_wal.
absl::StatusOr<bool> SourceHasWal(SqlSession& session, const std::string& name,
                                  absl::Duration timeout);

// The first position of which the source still has WAL, on any timeline; 0 when it cannot tell.
// What it removes it removes from the oldest on, so that nothing before that comes back.
absl::StatusOr<base::Lsn> OldestWalOfSource(SqlSession& session, uint64_t segment_size,
                                            absl::Duration timeout);

// OK when the source may be one for the target, whether it has checkpointed or not.
// FAILED_PRECONDITION, reason REWIND_SOURCE: another cluster, another major version (metadata
// differs), a standby, full_page_writes off.
absl::Status CheckRewindSource(const RewindSource& source, const ControlFile& target, int major);

}  // namespace metal::pg
