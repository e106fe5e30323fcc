#include "tools/metal-wal/options.h"

#include <charconv>
#include <string_view>
#include <vector>

namespace metal::wal {
namespace {

constexpr int kMaxTimeoutSeconds = 86400;

template <typename T>
bool ParseNumber(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// Sets the option `name` from `value`; false when the value is wrong.
bool SetValue(Options& options, std::string_view name, std::string_view value) {
  if (name == "--socket") {
    options.socket_path = std::string(value);
    return !value.empty();
  }
  if (name == "--timeout") {
    return ParseNumber(value, options.timeout_seconds) && options.timeout_seconds >= 1 &&
           options.timeout_seconds <= kMaxTimeoutSeconds;
  }
  return ParseNumber(value, options.system_identifier) && options.system_identifier != 0;
}

bool TakesValue(std::string_view name) {
  return name == "--socket" || name == "--timeout" || name == "--cluster";
}

}  // namespace

const char kHelpText[] =
    R"(metal-wal: PostgreSQL's archive_command and restore_command with metal-agent.

Usage:
  metal-wal push  [options] PATH NAME   archive the file PATH (%p) under NAME (%f)
  metal-wal fetch [options] NAME PATH   write the archived file NAME (%f) to PATH (%p)

Options:
  --socket PATH      the agent's WAL socket (default /run/metal/wal.sock)
  --timeout SECONDS  give up after this time (default 60)
  --cluster ID       system identifier (default: from global/pg_control in the working
                     directory, which is the data directory when PostgreSQL runs this)
  --strict           fetch: when the agent cannot answer, try again until the timeout and
                     then exit with 200, which stops the server; any other code ends a
                     recovery as if there were no more WAL. Implied where PostgreSQL recovers
                     to an end: recovery.signal and no standby.signal in the working directory
  --help, --version

Examples:
  archive_command = 'metal-wal push %p %f'
  restore_command = 'metal-wal fetch %f %p'
  metal-wal fetch --cluster 7300000000000000001 00000001000000000000000A /tmp/segment

Exit codes:
  0 done: the file is durable in the repository, or PATH is complete
  1 not in the archive (silent)
  2 wrong usage
  3 try again: agent not running, busy or too slow
  4 refused or failed: read the message
  200 fetch, strict: neither done nor known to be absent
PostgreSQL retries a failed push for ever and keeps the WAL meanwhile.
)";

std::optional<Options> ParseOptions(int argc, const char* const* argv, std::string& error) {
  Options options;
  std::vector<std::string_view> words;
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    if (word == "--help" || word == "-h") return Options{};
    if (word == "--version") {
      options.command = Options::Command::kVersion;
      return options;
    }
    if (word == "--strict") {
      options.strict = true;
    } else if (word.starts_with("--")) {
      const size_t equals = word.find('=');
      const std::string_view name = word.substr(0, equals);
      if (!TakesValue(name) || (equals == std::string_view::npos && i + 1 == argc)) {
        error = "unknown or incomplete option " + std::string(word);
        return std::nullopt;
      }
      const std::string_view value =
          equals == std::string_view::npos ? argv[++i] : word.substr(equals + 1);
      if (!SetValue(options, name, value)) {
        error = "bad value \"" + std::string(value) + "\" of " + std::string(name);
        return std::nullopt;
      }
    } else {
      words.push_back(word);
    }
  }
  if (words.size() != 3 || (words[0] != "push" && words[0] != "fetch")) {
    error = "expected: push PATH NAME, or fetch NAME PATH";
    return std::nullopt;
  }
  const bool push = words[0] == "push";
  options.command = push ? Options::Command::kPush : Options::Command::kFetch;
  options.path = std::string(words[push ? 1 : 2]);
  options.file_name = std::string(words[push ? 2 : 1]);
  if (options.path.empty() || options.file_name.empty() || options.file_name.size() > 255) {
    error = "empty path, or a file name of no length or more than 255 bytes";
    return std::nullopt;
  }
  return options;
}

}  // namespace metal::wal
