#include "agent/base/proc.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <climits>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::base {
namespace {

constexpr size_t kLongestCommandLine = 200;

std::string ProcPath(pid_t pid, std::string_view name) {
  return fmt::format("/proc/{}/{}", pid, name);
}

template <typename T>
std::optional<T> Number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string_view> Words(std::string_view text) {
  std::vector<std::string_view> words;
  size_t position = 0;
  while (true) {
    position = text.find_first_not_of(" \n", position);
    if (position == std::string_view::npos) return words;
    const size_t end = std::min(text.find_first_of(" \n", position), text.size());
    words.push_back(text.substr(position, end - position));
    position = end;
  }
}

uint64_t TicksPerSecond() { return static_cast<uint64_t>(sysconf(_SC_CLK_TCK)); }

std::optional<std::string> LinkTarget(const std::string& path) {
  constexpr std::string_view kDeleted = " (deleted)";
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  if (length < 0) return std::nullopt;
  std::string_view text(target, static_cast<size_t>(length));
  if (text.ends_with(kDeleted)) text.remove_suffix(kDeleted.size());
  return std::string(text);
}

}  // namespace

absl::StatusOr<ProcStat> ParseProcStat(std::string_view text) {
  const auto bad = [&] {
    return Error(absl::StatusCode::kInvalidArgument, "/proc stat line \"{}\" cannot be read",
                 text.substr(0, 60));
  };
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == std::string_view::npos || open == 0 || close == std::string_view::npos ||
      close < open)
    return bad();
  const auto pid = Number<pid_t>(text.substr(0, open - 1));
  // Fields are numbered in proc(5) from 1; the first word after the command is field 3.
  const std::vector<std::string_view> words = Words(text.substr(close + 1));
  constexpr size_t kState = 3 - 3, kParent = 4 - 3, kUser = 14 - 3, kSystem = 15 - 3,
                   kStart = 22 - 3;
  if (!pid || words.size() <= kStart || words[kState].size() != 1) return bad();
  const auto parent = Number<pid_t>(words[kParent]);
  const auto user = Number<uint64_t>(words[kUser]);
  const auto system = Number<uint64_t>(words[kSystem]);
  const auto start = Number<uint64_t>(words[kStart]);
  if (!parent || !user || !system || !start) return bad();
  ProcStat stat;
  stat.pid = *pid;
  stat.command = std::string(text.substr(open + 1, close - open - 1));
  stat.state = words[kState][0];
  stat.parent = *parent;
  stat.cpu = absl::Seconds(1) * static_cast<int64_t>(*user + *system) /
             static_cast<int64_t>(TicksPerSecond());
  stat.start_ticks = *start;
  return stat;
}

absl::StatusOr<ProcStat> ReadProcStat(pid_t pid) {
  const absl::StatusOr<std::string> text = ReadFile(ProcPath(pid, "stat"), 4096);
  if (!text.ok()) {
    return Error(absl::StatusCode::kNotFound, "process {}: {}", pid,
                 std::string(text.status().message()));
  }
  return ParseProcStat(*text);
}

absl::StatusOr<absl::Time> ProcessStartTime(const ProcStat& stat) {
  METAL_ASSIGN_OR_RETURN(const std::string text, ReadFile("/proc/stat"));
  constexpr std::string_view kLabel = "\nbtime ";
  const size_t found = text.find(kLabel);
  std::optional<int64_t> boot;
  if (found != std::string::npos) {
    const std::string_view rest = std::string_view(text).substr(found + kLabel.size());
    boot = Number<int64_t>(rest.substr(0, rest.find('\n')));
  }
  if (!boot) return Error(absl::StatusCode::kInternal, "/proc/stat has no btime");
  return absl::FromUnixSeconds(*boot) + absl::Seconds(1) * static_cast<int64_t>(stat.start_ticks) /
                                            static_cast<int64_t>(TicksPerSecond());
}

absl::StatusOr<ProcIo> ReadProcIo(pid_t pid) {
  METAL_ASSIGN_OR_RETURN(const std::string text, ReadFile(ProcPath(pid, "io"), 4096));
  const std::vector<std::string_view> words = Words(text);
  ProcIo io;
  for (size_t i = 0; i + 1 < words.size(); i += 2) {
    if (words[i] == "rchar:") io.read_bytes = Number<uint64_t>(words[i + 1]).value_or(0);
    if (words[i] == "wchar:") io.write_bytes = Number<uint64_t>(words[i + 1]).value_or(0);
  }
  return io;
}

std::optional<std::string> ProcessExe(pid_t pid) { return LinkTarget(ProcPath(pid, "exe")); }
std::optional<std::string> ProcessCwd(pid_t pid) { return LinkTarget(ProcPath(pid, "cwd")); }

std::string ProcessCommandLine(pid_t pid) {
  std::string text = ReadFile(ProcPath(pid, "cmdline"), 1 << 20).value_or("");
  std::replace(text.begin(), text.end(), '\0', ' ');
  while (!text.empty() && text.back() == ' ') text.pop_back();
  if (text.size() > kLongestCommandLine) text.resize(kLongestCommandLine);
  return text;
}

std::vector<std::string> ProcessArguments(pid_t pid) {
  const std::string text = ReadFile(ProcPath(pid, "cmdline"), 64 << 10).value_or("");
  std::vector<std::string> arguments;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\0', begin), text.size());
    arguments.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return arguments;
}

std::vector<pid_t> ListProcesses() {
  std::vector<pid_t> pids;
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory("/proc");
  if (!names.ok()) return pids;
  for (const std::string& name : *names) {
    if (const auto pid = Number<pid_t>(name)) pids.push_back(*pid);
  }
  std::sort(pids.begin(), pids.end());
  return pids;
}

}  // namespace metal::base
