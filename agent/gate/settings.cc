#include "agent/gate/settings.h"

#include <algorithm>
#include <charconv>

#include "agent/base/status.h"

namespace metal::gate {
namespace {

// Beyond the longest hold, so that whoever came at its beginning still gets a server after it.
constexpr absl::Duration kQueueMargin = absl::Seconds(60);
constexpr absl::Duration kShortestQueue = absl::Seconds(120);
constexpr absl::Duration kRefuseAfter = absl::Milliseconds(200);
constexpr absl::Duration kLoginRetry = absl::Milliseconds(200);
constexpr size_t kLongestName = 63;

constexpr std::string_view kStartKeys[] = {"listen_addr",     "listen_port",      "listen_backlog",
                                           "unix_socket_dir", "unix_socket_mode", "pidfile"};

std::string Seconds(absl::Duration duration) {
  return fmt::format("{:.3g}", absl::ToDoubleSeconds(duration));
}

// As loaders of the user file read it: a quote is doubled.
std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

bool HoldsControlCharacter(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

}  // namespace

std::string RenderIni(const DoorSettings& settings, const Target& target, Patience patience) {
  const absl::Duration queue = std::max(kShortestQueue, settings.hold_max + kQueueMargin);
  const absl::Duration wait = patience == Patience::kRefuse ? kRefuseAfter : queue;
  std::string text =
      "; Written by metal-agent; changes are overwritten.\n"
      "[databases]\n";
  text += fmt::format("* = host='{}' port={}\n\n[pgbouncer]\n", target.host, target.port);
  const auto add = [&text](std::string_view key, std::string_view value) {
    text += fmt::format("{} = {}\n", key, value);
  };
  add("listen_addr", settings.listen_host);
  add("listen_port", fmt::format("{}", settings.listen_port));
  add("listen_backlog", "1024");
  add("unix_socket_dir", settings.directory);
  add("unix_socket_mode", "0700");
  add("pidfile", settings.pid_path());
  add("logfile", settings.log_path());
  add("auth_type", settings.auth_type);
  add("auth_file", settings.auth_file);
  add("pool_mode", settings.pool_mode);
  add("max_client_conn", fmt::format("{}", settings.max_client_conn));
  add("default_pool_size", fmt::format("{}", settings.default_pool_size));
  add("query_wait_timeout", Seconds(wait));
  add("client_login_timeout", Seconds(queue));
  // A host that is switched off answers nothing: clients queue while the attempt lasts. One that
  // refuses fails at once, and is asked again soon.
  add("server_connect_timeout", Seconds(std::max(absl::Seconds(30), settings.hold_max)));
  add("server_login_retry", Seconds(kLoginRetry));
  add("server_fast_close", "1");
  add("client_tls_sslmode", settings.client_tls);
  if (settings.client_tls != "disable") {
    add("client_tls_cert_file", settings.certificate);
    add("client_tls_key_file", settings.key);
  }
  add("server_tls_sslmode", settings.server_tls);
  if (!settings.server_ca.empty()) add("server_tls_ca_file", settings.server_ca);
  add("tcp_keepidle", "5");
  add("tcp_keepintvl", "2");
  add("tcp_keepcnt", "3");
  add("tcp_user_timeout", "30000");
  add("ignore_startup_parameters", "extra_float_digits");
  add("log_connections", "0");
  add("log_disconnections", "0");
  add("log_stats", "0");
  return text;
}

std::string LinesOfStart(std::string_view ini) {
  std::string found;
  while (!ini.empty()) {
    const size_t end = std::min(ini.find('\n'), ini.size());
    const std::string_view line = ini.substr(0, end);
    ini.remove_prefix(std::min(end + 1, ini.size()));
    const std::string_view key = line.substr(0, line.find(' '));
    if (std::ranges::find(kStartKeys, key) != std::end(kStartKeys))
      found += fmt::format("{}\n", line);
  }
  return found;
}

std::string RenderUsers(const std::vector<RoleSecret>& roles, bool without_password) {
  std::string text;
  for (const RoleSecret& role : roles) {
    const bool scram = role.secret.starts_with("SCRAM-SHA-256$");
    if (!scram && !without_password) continue;
    if (role.name.empty() || role.name.size() > kLongestName || HoldsControlCharacter(role.name))
      continue;
    text += fmt::format("{} {}\n", Quoted(role.name), Quoted(scram ? role.secret : ""));
  }
  return text;
}

absl::StatusOr<Target> ParseListen(std::string_view text) {
  const auto bad = [&] {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "\"{}\" is no address to listen on. HINT: host:port, for example "
                       "127.0.0.1:6432",
                       text);
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad();
  std::string_view host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  Target target{std::string(host), 0};
  const char* const end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data() + colon + 1, end, target.port);
  if (error != std::errc() || next != end || target.port < 1 || target.port > 65535) return bad();
  return target;
}

}  // namespace metal::gate
