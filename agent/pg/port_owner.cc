#include "agent/pg/port_owner.h"

#include <arpa/inet.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/proc.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr std::string_view kListen = "0A";

std::vector<std::string_view> SplitOn(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> words;
  size_t position = 0;
  while (true) {
    position = text.find_first_not_of(separators, position);
    if (position == std::string_view::npos) return words;
    const size_t end = std::min(text.find_first_of(separators, position), text.size());
    words.push_back(text.substr(position, end - position));
    position = end;
  }
}

template <typename T>
bool ParseInt(std::string_view text, T& value, int radix) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, radix);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// The kernel prints an address as 32-bit words in the machine's byte order.
std::string ParseAddress(std::string_view hex) {
  if (hex.size() != 8 && hex.size() != 32) return "";
  uint32_t words[4] = {};
  for (size_t i = 0; i < hex.size() / 8; ++i) {
    if (!ParseInt(hex.substr(i * 8, 8), words[i], 16)) return "";
  }
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(hex.size() == 8 ? AF_INET : AF_INET6, words, text, sizeof text);
  return text;
}

bool IsAny(std::string_view address) { return address == "0.0.0.0" || address == "::"; }
bool IsLoopback(std::string_view address) {
  return address.starts_with("127.") || address == "::1";
}

pid_t SocketHolder(uint64_t inode) {
  const std::string wanted = fmt::format("socket:[{}]", inode);
  for (const pid_t pid : base::ListProcesses()) {
    const std::string directory = fmt::format("/proc/{}/fd", pid);
    const absl::StatusOr<std::vector<std::string>> names = base::ListDirectory(directory);
    if (!names.ok()) continue;  // not ours to see
    for (const std::string& name : *names) {
      char target[64];
      const ssize_t length =
          readlink(base::JoinPath(directory, name).c_str(), target, sizeof target);
      if (length > 0 && std::string_view(target, static_cast<size_t>(length)) == wanted) return pid;
    }
  }
  return 0;
}

absl::Status InUse(int port, const std::string& what, pid_t pid, const std::string& command) {
  const std::string holder = pid > 0 ? fmt::format("process {} ({})", pid, command)
                                     : std::string("a process of another user");
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "{} is held by {}. HINT: stop it, or set another [postgres] port", what, holder),
      {"PORT_IN_USE",
       {{"port", fmt::format("{}", port)}, {"pid", fmt::format("{}", pid)}, {"command", command}}});
}

absl::Status CheckSocketFree(int port, const std::string& socket_dir) {
  struct stat info;
  if (stat(socket_dir.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "socket directory {} does not exist. HINT: make it, or set [postgres] socket_dir",
        socket_dir);
  }
  if (access(socket_dir.c_str(), W_OK | X_OK) != 0) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "socket directory {} is not writable for user id {}. HINT: chown it",
                       socket_dir, getuid());
  }
  const std::string lock = base::JoinPath(socket_dir, fmt::format(".s.PGSQL.{}.lock", port));
  const absl::StatusOr<std::string> text = base::ReadFile(lock, 4096);
  pid_t pid = 0;
  if (!text.ok() || !ParseInt(std::string_view(*text).substr(0, text->find('\n')), pid, 10))
    return absl::OkStatus();
  const absl::StatusOr<base::ProcStat> process = base::ReadProcStat(pid);
  if (!process.ok() || process->state == 'Z') return absl::OkStatus();
  // A stale lock file whose pid now belongs to something else is what PostgreSQL itself clears up.
  const std::string command = base::ProcessCommandLine(pid);
  if (command.find("postgres") == std::string::npos &&
      command.find("postmaster") == std::string::npos) {
    return absl::OkStatus();
  }
  return InUse(port, fmt::format("socket {}/.s.PGSQL.{}", socket_dir, port), pid, command);
}

}  // namespace

std::vector<TcpListener> ParseProcNetTcp(std::string_view text) {
  std::vector<TcpListener> listeners;
  for (const std::string_view line : SplitOn(text, "\n")) {
    const std::vector<std::string_view> words = SplitOn(line, " ");
    constexpr size_t kLocal = 1, kState = 3, kInode = 9;
    if (words.size() <= kInode || words[kState] != kListen) continue;
    const size_t colon = words[kLocal].find(':');
    TcpListener listener;
    if (colon == std::string_view::npos ||
        !ParseInt(words[kLocal].substr(colon + 1), listener.port, 16) ||
        !ParseInt(words[kInode], listener.inode, 10)) {
      continue;
    }
    listener.address = ParseAddress(words[kLocal].substr(0, colon));
    if (!listener.address.empty()) listeners.push_back(std::move(listener));
  }
  return listeners;
}

bool ListenAddressesOverlap(std::string_view listen_addresses, std::string_view address) {
  for (const std::string_view wanted : SplitOn(listen_addresses, ", ")) {
    if (wanted == "*" || wanted == address || IsAny(wanted)) return true;
    if (IsAny(address)) return true;
    if (wanted == "localhost" && IsLoopback(address)) return true;
  }
  return false;
}

std::optional<PortOwner> FindPortOwner(int port, std::string_view listen_addresses) {
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    const absl::StatusOr<std::string> text = base::ReadFile(table, 64 << 20);
    if (!text.ok()) continue;
    for (const TcpListener& listener : ParseProcNetTcp(*text)) {
      if (listener.port != port || !ListenAddressesOverlap(listen_addresses, listener.address))
        continue;
      PortOwner owner{listener.address, SocketHolder(listener.inode), ""};
      if (owner.pid > 0) owner.command = base::ProcessCommandLine(owner.pid);
      return owner;
    }
  }
  return std::nullopt;
}

absl::Status CheckPortFree(int port, std::string_view listen_addresses,
                           const std::string& socket_dir) {
  METAL_RETURN_IF_ERROR(CheckSocketFree(port, socket_dir));
  const std::optional<PortOwner> owner = FindPortOwner(port, listen_addresses);
  if (!owner) return absl::OkStatus();
  return InUse(port, fmt::format("TCP port {} on {}", port, owner->address), owner->pid,
               owner->command);
}

}  // namespace metal::pg
