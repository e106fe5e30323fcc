// What PostgreSQL's log says of the disks: lines about reads, writes and syncs that failed, full
// disks, pages that are not what was written.
// The log is no safe witness: whoever may run SQL can RAISE any ERROR, and whoever may connect can
// put text into a prefix (%u, %d). So lines that alone would fence a node (fsync_error,
// write_error) count only of a process that PANICked and that the postmaster then saw end by
// SIGABRT; all others of that kind are events, no evidence. Even so a second witness is advisable.
// Messages are those of PostgreSQL 13 to 18 in English (lc_messages C or en_*).
// Events: "disk.postgres_line" (subject "postgres"; attributes class, role, or left_out).
// Threading: pure; PostgresLogJudge is not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/sources/kernel_log.h"
#include "agent/disk/sources/line_limiter.h"

namespace metal::disk {

struct PostgresLine {
  std::string_view level;  // "PANIC", "ERROR", …
  std::string_view message;
  int pid = 0;  // of the prefix's "[123]"; 0: none
};

// Splits at the level, whatever log_line_prefix is. nullopt: not the first line of a message.
std::optional<PostgresLine> SplitPostgresLine(std::string_view line);

struct PostgresFinding {
  FaultClass fault_class{};
  std::string path;  // as the message has it: relative to the data directory; may be empty
  std::optional<int> error_number;
};

// nullopt: nothing about a disk.
std::optional<PostgresFinding> ClassifyPostgresMessage(std::string_view message);

// The role of a directory that a path of the server lies in: "wal", "tablespace:16385", "data".
std::string RoleOfPath(std::string_view path);

class PostgresLogJudge {
 public:
  // `roles`: the watched ones; a path in another's place counts to "data".
  void OnLine(std::string_view line, const std::set<std::string>& roles, KernelLogJudge::Now now,
              Findings& out);
  // Tells what was left out of the windows that have ended.
  void Tick(KernelLogJudge::Now now, Findings& out);

 private:
  struct Panic {
    Evidence evidence;
    base::MonotonicTime seen;
  };
  void OnProcessEnd(std::string_view message, KernelLogJudge::Now now, Findings& out);
  void Tell(std::string_view line, const Evidence& evidence, KernelLogJudge::Now now,
            Findings& out);

  LineLimiter limiter_{5, absl::Minutes(1)};
  std::map<int, Panic> panics_;  // by pid: those whose process has not ended yet
};

// Growth of pg_stat_database.checksum_failures, summed over all databases.
// Threading: not thread-safe.
class ChecksumJudge {
 public:
  // Evidence "corruption" of role "data" when the count grew. What it was at first, or after the
  // statistics were reset, is history.
  std::optional<Evidence> Observe(int64_t failures, absl::Time now);

 private:
  std::optional<int64_t> last_;
};

}  // namespace metal::disk
