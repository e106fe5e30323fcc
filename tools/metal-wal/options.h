// metal-wal's command line: options, exit codes, help. Threading: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace metal::wal {

// Exit codes. PostgreSQL takes 126 and more from restore_command as "stop the server", so only
// --strict uses such a code.
enum ExitCode {
  kDone = 0,
  kNotFound = 1,  // fetch: the archive does not have the file
  kUsage = 2,
  kTryAgain = 3,       // agent not running or busy, timeout
  kFailed = 4,         // will fail again until somebody acts
  kStopRecovery = 200  // fetch --strict: anything but "done" and "not found"
};

struct Options {
  enum class Command { kPush, kFetch, kHelp, kVersion };
  Command command = Command::kHelp;
  std::string socket_path = "/run/metal/wal.sock";
  int timeout_seconds = 60;
  uint64_t system_identifier = 0;  // 0: read global/pg_control of the working directory
  bool strict = false;             // false: as the working directory says
  std::string file_name;           // %f
  std::string path;                // %p
};

// nullopt and a message in `error` when the arguments are wrong.
std::optional<Options> ParseOptions(int argc, const char* const* argv, std::string& error);

extern const char kHelpText[];

}  // namespace metal::wal
