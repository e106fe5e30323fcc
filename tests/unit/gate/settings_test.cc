#include "agent/gate/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/harness/status_matchers.h"

namespace metal::gate {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::StatusIs;

DoorSettings Settings() {
  DoorSettings settings;
  settings.directory = "/var/lib/metal/gate";
  settings.listen_host = "0.0.0.0";
  settings.listen_port = 6432;
  settings.auth_file = "/var/lib/metal/gate/userlist.txt";
  return settings;
}

TEST(SettingsTest, TheIniSaysWhereTheDoorLeadsAndWhoMayManageIt) {
  const std::string ini = RenderIni(Settings(), {"db-2", 5433}, Patience::kThroughHolds);
  EXPECT_THAT(ini, HasSubstr("[databases]\n* = host='db-2' port=5433\n\n[pgbouncer]\n"));
  EXPECT_THAT(ini, HasSubstr("\nlisten_addr = 0.0.0.0\nlisten_port = 6432\n"));
  EXPECT_THAT(ini, HasSubstr("\nunix_socket_dir = /var/lib/metal/gate\nunix_socket_mode = 0700\n"));
  EXPECT_THAT(ini, HasSubstr("\nauth_type = scram-sha-256\n"));
  EXPECT_THAT(ini, HasSubstr("\npool_mode = transaction\n"));
  EXPECT_THAT(ini, Not(HasSubstr("admin_users"))) << "only the socket's owner manages it";
}

TEST(SettingsTest, FilesOfTlsAreNamedWhereTheyAreUsed) {
  DoorSettings settings = Settings();
  settings.certificate = "/c.pem";
  settings.key = "/k.pem";
  EXPECT_THAT(RenderIni(settings, {"a", 1}, Patience::kThroughHolds), Not(HasSubstr("/c.pem")));
  settings.client_tls = "require";
  settings.server_tls = "verify-full";
  settings.server_ca = "/ca.pem";
  const std::string ini = RenderIni(settings, {"a", 1}, Patience::kThroughHolds);
  EXPECT_THAT(ini, HasSubstr("\nclient_tls_sslmode = require\nclient_tls_cert_file = /c.pem\n"
                             "client_tls_key_file = /k.pem\nserver_tls_sslmode = verify-full\n"
                             "server_tls_ca_file = /ca.pem\n"));
}

TEST(SettingsTest, ClientsWaitLongerThanTheLongestHold) {
  DoorSettings settings = Settings();
  EXPECT_THAT(RenderIni(settings, {"a", 1}, Patience::kThroughHolds),
              HasSubstr("\nquery_wait_timeout = 120\nclient_login_timeout = 120\n"));
  settings.hold_max = absl::Minutes(5);
  const std::string ini = RenderIni(settings, {"a", 1}, Patience::kThroughHolds);
  EXPECT_THAT(ini, HasSubstr("\nquery_wait_timeout = 360\nclient_login_timeout = 360\n"));
  EXPECT_THAT(ini, HasSubstr("\nserver_connect_timeout = 300\n"));
}

TEST(SettingsTest, OnlyWhatIsReadAtTheStartNeedsAnotherProcess) {
  DoorSettings settings = Settings();
  const auto lines = [&](const Target& target, Patience patience) {
    return LinesOfStart(RenderIni(settings, target, patience));
  };
  const std::string before = lines({"a", 1}, Patience::kThroughHolds);
  settings.max_client_conn = 7;
  settings.pool_mode = "session";
  EXPECT_EQ(lines({"b", 2}, Patience::kRefuse), before);
  settings.listen_port = 6433;
  EXPECT_NE(lines({"a", 1}, Patience::kThroughHolds), before);
}

TEST(SettingsTest, RolesWithoutASecretAreLeftOutUnlessNobodyIsAsked) {
  const std::vector<RoleSecret> roles = {{"app", "SCRAM-SHA-256$4096:c2FsdA==$a:b"},
                                         {"old", "md5abc"},
                                         {"postgres", ""},
                                         {"a\"b", "SCRAM-SHA-256$x"},
                                         {"line\nbreak", "SCRAM-SHA-256$x"},
                                         {std::string(64, 'n'), "SCRAM-SHA-256$x"}};
  EXPECT_EQ(RenderUsers(roles, false),
            "\"app\" \"SCRAM-SHA-256$4096:c2FsdA==$a:b\"\n\"a\"\"b\" \"SCRAM-SHA-256$x\"\n");
  EXPECT_THAT(RenderUsers(roles, true), HasSubstr("\"postgres\" \"\"\n"));
}

TEST(SettingsTest, AnAddressHasAHostAndAPort) {
  ASSERT_OK_AND_ASSIGN(const Target target, ParseListen("[::1]:6432"));
  EXPECT_EQ(target, (Target{"::1", 6432}));
  EXPECT_EQ(*ParseListen("*:1"), (Target{"*", 1}));
  for (const char* text : {"", "x", ":1", "x:", "x:0", "x:65536", "x:1a"})
    EXPECT_THAT(ParseListen(text), StatusIs(absl::StatusCode::kInvalidArgument)) << text;
}

}  // namespace
}  // namespace metal::gate
