// What /proc tells about one process.
// Source: proc(5). Threading: pure functions and reads of procfs, which do not touch a disk.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::base {

struct ProcStat {
  pid_t pid = 0;
  std::string command;  // comm, at most 15 characters
  char state = '?';     // 'R', 'S', 'D', 'T', 'Z', …
  pid_t parent = 0;
  absl::Duration cpu;        // user + system, resolution 10 ms
  uint64_t start_ticks = 0;  // since boot; with the pid it names a process for ever
};
// Text of /proc/PID/stat. The command may hold spaces and parentheses. INVALID_ARGUMENT when fields
// are missing.
absl::StatusOr<ProcStat> ParseProcStat(std::string_view text);
// NOT_FOUND when there is no such process.
absl::StatusOr<ProcStat> ReadProcStat(pid_t pid);
// Wall-clock time at which the process started; resolution 1 s, follows later steps of the clock.
absl::StatusOr<absl::Time> ProcessStartTime(const ProcStat& stat);

struct ProcIo {
  uint64_t read_bytes = 0,
           write_bytes = 0;  // through system calls, page cache or not (rchar, wchar)
};
absl::StatusOr<ProcIo> ReadProcIo(pid_t pid);

// Targets of /proc/PID/exe and /proc/PID/cwd without " (deleted)"; nullopt when not permitted or
// gone.
std::optional<std::string> ProcessExe(pid_t pid);
std::optional<std::string> ProcessCwd(pid_t pid);
// Arguments with spaces between, cut at 200 bytes; empty when gone.
std::string ProcessCommandLine(pid_t pid);
// All of them, one by one; empty when gone or longer than 64 KiB.
std::vector<std::string> ProcessArguments(pid_t pid);
// All process ids, ascending.
std::vector<pid_t> ListProcesses();

}  // namespace metal::base
