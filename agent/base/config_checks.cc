#include "agent/base/config_checks.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/throttle.h"

namespace metal::base {
namespace {

constexpr const char* kServerRoot = "/usr/lib/postgresql";

absl::Status Invalid(std::string_view text) {
  return absl::InvalidArgumentError(std::string(text));
}

std::string_view HostOf(std::string_view listen) {
  std::string_view host = listen.substr(0, listen.rfind(':'));
  if (host.size() >= 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return host;
}

bool IsLoopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

// True when `path` is `directory` or lies below it, by name alone.
bool IsWithin(std::string_view path, std::string_view directory) {
  while (directory.size() > 1 && directory.back() == '/') directory.remove_suffix(1);
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

absl::Status CheckTls(const AgentConfig& config) {
  const bool any =
      !config.tls_certificate.empty() || !config.tls_key.empty() || !config.tls_client_ca.empty();
  const bool all =
      !config.tls_certificate.empty() && !config.tls_key.empty() && !config.tls_client_ca.empty();
  if (any && !all) {
    return Invalid(
        "tls: certificate, key and client_ca belong together. HINT: give all three or none");
  }
  if (!config.role_bindings.empty() && !all) {
    return Invalid(
        "tls.role: roles need tls.certificate, tls.key and tls.client_ca. HINT: give all three");
  }
  for (const auto& [option, listen] : {std::pair("agent.listen", config.listen),
                                       std::pair("transfer.listen", config.transfer_listen)}) {
    if (listen.empty() || all || IsLoopback(HostOf(listen))) continue;
    return Error(absl::StatusCode::kInvalidArgument,
                 "{} = \"{}\": only a loopback address may be served without TLS. "
                 "HINT: set tls.certificate, tls.key and tls.client_ca",
                 option, listen);
  }
  return absl::OkStatus();
}

absl::Status CheckGate(const AgentConfig& config) {
  if (!config.gate_enabled) return absl::OkStatus();
  for (const std::string& listen : {config.gate_listen, config.gate_read_only_listen}) {
    if (listen.ends_with(":0")) {
      return Error(absl::StatusCode::kInvalidArgument,
                   "gate: \"{}\": a door needs a port. HINT: for example 127.0.0.1:6432", listen);
    }
    if (!listen.empty() && config.gate_auth_type == "trust" && !IsLoopback(HostOf(listen))) {
      return Error(
          absl::StatusCode::kInvalidArgument,
          "gate: \"{}\": only a loopback address may be served with auth_type = \"trust\". "
          "HINT: scram-sha-256",
          listen);
    }
  }
  if (config.gate_listen.empty() || config.gate_listen == config.gate_read_only_listen) {
    return Error(absl::StatusCode::kInvalidArgument,
                 "gate.listen = \"{}\": must be given, and be another than gate.read_only_listen. "
                 "HINT: for example 127.0.0.1:6432",
                 config.gate_listen);
  }
  if (config.gate_client_tls != "disable" &&
      (config.gate_certificate.empty() || config.gate_key.empty())) {
    return Error(
        absl::StatusCode::kInvalidArgument,
        "gate.client_tls = \"{}\": needs gate.certificate and gate.key. HINT: give both, or "
        "\"disable\"",
        config.gate_client_tls);
  }
  if (config.gate_server_tls.starts_with("verify-") && config.gate_server_ca.empty()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 "gate.server_tls = \"{}\": needs gate.server_ca. HINT: give it, or \"require\"",
                 config.gate_server_tls);
  }
  // Of the admin socket of the read-only door, and of the place that leads nowhere.
  constexpr std::string_view kLongest = "/gate/read-only/nowhere/.s.PGSQL.1";
  constexpr size_t kSocketPath = 107;
  if (config.state_dir.size() + kLongest.size() > kSocketPath) {
    return Error(
        absl::StatusCode::kInvalidArgument,
        "agent.state_dir = \"{}\": too long for the unix sockets of the gate. HINT: at most "
        "{} characters",
        config.state_dir, kSocketPath - kLongest.size());
  }
  return absl::OkStatus();
}

absl::Status CheckWatchdog(const AgentConfig& config) {
  const std::string& path = config.disk_watchdog;
  if (path.empty()) return absl::OkStatus();
  constexpr std::string_view kDevice = "/dev/watchdog";
  const bool named = path.starts_with(kDevice) && path.size() <= kDevice.size() + 3 &&
                     std::all_of(path.begin() + kDevice.size(), path.end(),
                                 [](char c) { return c >= '0' && c <= '9'; });
  if (!named) {
    return Error(absl::StatusCode::kInvalidArgument,
                 "disk.watchdog = \"{}\": is no watchdog. HINT: /dev/watchdog or /dev/watchdog0",
                 path);
  }
  if (config.probe_enabled) return absl::OkStatus();
  return Invalid(
      "disk.watchdog: is fed while probes come back, and there are none. HINT: set "
      "disk.probe_enabled = true");
}

absl::Status CheckOutsideData(std::string_view option, const std::string& path,
                              const std::string& data) {
  if (path.empty() || !IsWithin(path, data)) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument,
               "{} = \"{}\": lies inside postgres.data_dir. HINT: choose a directory outside {}",
               option, path, data);
}

// Newest server first: "9.6" < "13" < "17".
std::string NewestServer() {
  const auto names = ListDirectory(kServerRoot);
  if (!names.ok()) return "";
  double newest = 0;
  std::string found;
  for (const std::string& name : *names) {
    double version = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), version);
    if (error != std::errc() || end != name.data() + name.size() || version <= newest) continue;
    const std::string bin = JoinPath(JoinPath(kServerRoot, name), "bin");
    if (!PathExists(JoinPath(bin, "postgres"))) continue;
    newest = version;
    found = bin;
  }
  return found;
}

}  // namespace

bool IsOneOf(std::string_view value, std::string_view allowed) {
  while (!allowed.empty()) {
    const size_t end = std::min(allowed.find(", "), allowed.size());
    if (allowed.substr(0, end) == value) return true;
    allowed.remove_prefix(std::min(end + 2, allowed.size()));
  }
  return false;
}

bool IsListenAddress(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view port = text.substr(colon + 1);
  int number = -1;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || number < 0 || number > 65535)
    return false;
  const std::string_view host = text.substr(0, colon);
  const bool bracketed = host.front() == '[' && host.back() == ']' && host.size() > 2;
  return bracketed || host.find_first_of("[]: /") == std::string_view::npos;
}

absl::Status CheckTogether(const AgentConfig& config) {
  METAL_RETURN_IF_ERROR(CheckTls(config));
  METAL_RETURN_IF_ERROR(CheckGate(config));
  METAL_RETURN_IF_ERROR(CheckWatchdog(config));
  METAL_RETURN_IF_ERROR(CheckOutsideData("agent.state_dir", config.state_dir, config.pg_data_dir));
  METAL_RETURN_IF_ERROR(
      CheckOutsideData("postgres.wal_dir", config.pg_wal_dir, config.pg_data_dir));
  METAL_RETURN_IF_ERROR(
      CheckOutsideData("repository.path", config.repository_path, config.pg_data_dir));
  METAL_RETURN_IF_ERROR(
      CheckOutsideData("recorder.directory", config.recorder_directory, config.pg_data_dir));
  if (!Throttle::CheckRate(config.backup_rate_limit.value).ok()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 "backup.rate_limit = \"{}B\": no backup would ever end. HINT: at least 1MiB, or "
                 "0B for no limit",
                 config.backup_rate_limit.value);
  }
  if (config.backup_latency_max > absl::ZeroDuration() && !config.probe_enabled) {
    return Error(absl::StatusCode::kInvalidArgument,
                 "backup.latency_max = \"{}\": nobody measures it while disk.probe_enabled is "
                 "false. HINT: switch probes on, or set backup.rate_limit",
                 absl::FormatDuration(config.backup_latency_max));
  }
  if (config.socket == config.wal_socket) {
    return Error(absl::StatusCode::kInvalidArgument,
                 "agent.wal_socket = \"{}\": is agent.socket too. HINT: give each its own path",
                 config.wal_socket);
  }
  return absl::OkStatus();
}

void ResolveMachineDefaults(AgentConfig& config) {
  if (config.node_id.empty()) {
    char name[HOST_NAME_MAX + 1] = {};
    config.node_id = gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
  }
  if (config.pg_bin_dir.empty()) config.pg_bin_dir = NewestServer();
  if (config.recorder_directory.empty())
    config.recorder_directory = JoinPath(config.state_dir, "recorder");
  if (config.wal_helper.empty()) {
    char path[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    const std::string_view executable(path, length < 0 ? 0 : static_cast<size_t>(length));
    config.wal_helper =
        JoinPath(executable.empty() ? "/usr/bin" : DirectoryOf(executable), "metal-wal");
  }
}

}  // namespace metal::base
