#include "agent/pg/replication_source.h"

#include <libpq-fe.h>

#include <memory>

namespace metal::pg {
namespace {

constexpr size_t kLongestName = 63;  // NAMEDATALEN - 1

// A value of a connection string: always quoted.
std::string QuoteConnValue(std::string_view value) {
  std::string quoted = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "'";
}

void Append(std::string& text, std::string_view keyword, std::string_view value) {
  if (value.empty()) return;
  if (!text.empty()) text += ' ';
  text += keyword;
  text += '=';
  text += QuoteConnValue(value);
}

}  // namespace

std::string ConnInfo(const ReplicationSource& source) {
  std::string text;
  Append(text, "host", source.host);
  Append(text, "port", std::to_string(source.port));
  Append(text, "user", source.user);
  Append(text, "passfile", source.passfile);
  Append(text, "sslmode", source.ssl_mode);
  Append(text, "application_name", source.application_name);
  // connect_timeout covers the connect only: a cut link is found by these.
  Append(text, "connect_timeout", "5");
  Append(text, "keepalives_idle", "5");
  Append(text, "keepalives_interval", "2");
  Append(text, "keepalives_count", "3");
  Append(text, "tcp_user_timeout", "10000");
  return text;
}

SettingPatch FollowSettings(const ReplicationSource& source) {
  SettingPatch patch = FollowNobody();
  patch["primary_conninfo"] = ConnInfo(source);
  if (!source.slot.empty()) patch["primary_slot_name"] = source.slot;
  return patch;
}

SettingPatch FollowNobody() {
  return {{"primary_conninfo", std::nullopt},
          {"primary_slot_name", std::nullopt},
          {"restore_command", std::nullopt}};
}

std::string SlotNameOf(std::string_view node_id) {
  std::string name(kSlotPrefix);
  for (const char c : node_id) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    const bool upper = c >= 'A' && c <= 'Z';
    name += plain ? c : upper ? static_cast<char>(c - 'A' + 'a') : '_';
  }
  return name.substr(0, kLongestName);
}

std::string UncountedName(std::string_view node_id) {
  return std::string(kUncountedPrefix) + std::string(node_id);
}

std::string WithOwnName(std::string conninfo, std::string_view node_id) {
  std::string uncounted, own;
  Append(uncounted, "application_name", UncountedName(node_id));
  Append(own, "application_name", std::string(node_id));
  const size_t at = conninfo.find(uncounted);
  return at == std::string::npos ? conninfo : conninfo.replace(at, uncounted.size(), own);
}

std::string AddressIn(const std::string& conninfo) {
  struct Free {
    void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
  };
  const std::unique_ptr<PQconninfoOption, Free> options(PQconninfoParse(conninfo.c_str(), nullptr));
  if (options == nullptr) return "";
  std::string host, port = "5432";
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val == nullptr || *option->val == '\0') continue;
    const std::string_view keyword(option->keyword);
    if (keyword == "host") host = option->val;
    if (keyword == "hostaddr" && host.empty()) host = option->val;
    if (keyword == "port") port = option->val;
  }
  return host.empty() ? "" : host + ":" + port;
}

}  // namespace metal::pg
