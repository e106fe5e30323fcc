// Decodes global/pg_control of PostgreSQL 13 to 18.
// Source: src/include/catalog/pg_control.h of each version (layouts 1300, 1700 and 1800),
// little-endian, 8-byte alignment. Threading: pure functions; ReadControlFile blocks on the data
// disk.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"

namespace metal::pg {

// DBState; the numbers are those of the file.
enum class ControlState {
  kStartingUp = 0,
  kShutDown = 1,
  kShutDownInRecovery = 2,
  kShuttingDown = 3,
  kInCrashRecovery = 4,
  kInArchiveRecovery = 5,
  kInProduction = 6,
};

// pg_controldata's text: "shut down", "in production", …
std::string_view ControlStateName(ControlState state);
// "minimal", "replica", "logical".
std::string_view WalLevelName(int wal_level);

struct ControlFile {
  uint64_t system_identifier = 0;
  uint32_t control_version = 0;  // 1300 (PostgreSQL 13–16), 1700, 1800
  uint32_t catalog_version = 0;
  ControlState state = ControlState::kStartingUp;
  absl::Time modified;  // resolution 1 s

  base::Lsn checkpoint;
  base::Lsn redo;
  base::TimelineId timeline = 0;
  base::TimelineId previous_timeline = 0;
  bool full_page_writes = false;
  uint64_t next_xid = 0;  // epoch in the upper half
  absl::Time checkpoint_time;

  base::Lsn min_recovery;  // 0 outside recovery
  base::TimelineId min_recovery_timeline = 0;
  base::Lsn backup_start;  // not 0: recovering from a backup
  base::Lsn backup_end;
  bool backup_end_required = false;

  int wal_level = 0;  // 0 minimal, 1 replica, 2 logical
  bool wal_log_hints = false;
  int max_connections = 0;
  int max_worker_processes = 0;
  int max_wal_senders = 0;
  int max_prepared_transactions = 0;
  int max_locks_per_transaction = 0;
  bool track_commit_timestamp = false;

  uint32_t block_size = 0;        // bytes
  uint32_t segment_blocks = 0;    // relseg_size: blocks in one relation segment file
  uint32_t wal_block_size = 0;    // bytes
  uint64_t wal_segment_size = 0;  // bytes
  uint32_t checksum_version = 0;  // 0: page checksums are off

  // Stopped with everything on disk: "shut down", or "shut down in recovery" of a standby. A
  // primary that is stopped in the middle of its crash recovery says the latter too, and has no
  // minimum yet: its pages may be of WAL that it did not get to.
  bool clean() const {
    return state == ControlState::kShutDown ||
           (state == ControlState::kShutDownInRecovery && min_recovery.value != 0);
  }
};

// The catalog version decides between the majors that share a layout: 13, 14, 15, 16, 17, 18; 0
// when it is none of theirs.
int MajorVersionOf(const ControlFile& control);

// DATA_LOSS: too short or the CRC does not match (also a torn read). FAILED_PRECONDITION: unknown
// pg_control version or a field that no server writes. Does not keep `bytes`.
absl::StatusOr<ControlFile> DecodeControlFile(std::span<const std::byte> bytes);

// Reads <data_dir>/global/pg_control. A read beside the server's write may be torn: a CRC mismatch
// is read again until it matches or two reads 50 ms apart gave the same bad bytes. NOT_FOUND when
// there is none.
absl::StatusOr<ControlFile> ReadControlFile(const std::string& data_dir);

}  // namespace metal::pg
