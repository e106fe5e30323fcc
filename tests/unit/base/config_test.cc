#include "agent/base/config.h"

#include <gtest/gtest.h>

#include "agent/base/config_checks.h"
#include "agent/base/fault_reactions.h"
#include "agent/base/option_table.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::base {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::StatusIs;
using testing::TempDir;

constexpr const char* kMinimal = "[postgres]\ndata_dir = \"/data/pg\"\n";

absl::StatusOr<AgentConfig> Parse(const std::string& text) {
  return ParseConfig(text, "agent.toml");
}
absl::StatusOr<AgentConfig> ParseAfterMinimal(const std::string& text) {
  return Parse(kMinimal + text);
}

auto Rejected(const std::string& text) {
  return StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(text), HasSubstr("HINT: ")));
}

TEST(ConfigTest, DataDirectoryAloneIsEnough) {
  ASSERT_OK_AND_ASSIGN(const AgentConfig config, Parse(kMinimal));
  EXPECT_EQ(config.pg_data_dir, "/data/pg");
  EXPECT_EQ(config.cluster_id, "default");
  EXPECT_EQ(config.state_dir, "/var/lib/metal");
  EXPECT_EQ(config.os_user, "postgres");
  EXPECT_EQ(config.socket, "/run/metal/agent.sock");
  EXPECT_EQ(config.log_level, "info");
  EXPECT_EQ(config.backup_codec, "zstd");
  EXPECT_EQ(config.io_engine, "auto");
  EXPECT_FALSE(config.node_id.empty());
  EXPECT_THAT(config.wal_helper, ::testing::EndsWith("/metal-wal"));
}

TEST(ConfigTest, DefaultsOfTheTableAreThoseOfTheStruct) {
  const AgentConfig plain;
  ASSERT_OK_AND_ASSIGN(const AgentConfig parsed, Parse(kMinimal));
  for (const Option& option : Options()) {
    std::visit(
        [&](auto target) {
          if constexpr (!std::is_same_v<decltype(target), std::string AgentConfig::*>) {
            EXPECT_TRUE(plain.*target == parsed.*target) << option.section << "." << option.key;
          }
        },
        option.target);
  }
}

// Takes the comment signs off the options (not off the sentences) and gives what has no default.
std::string Uncommented(const std::string& text) {
  std::string result;
  size_t start = 0;
  while (start < text.size()) {
    const size_t end = text.find('\n', start);
    std::string line = text.substr(start, end - start);
    if (line.starts_with("#") && !line.starts_with("# ")) line = line.substr(1);
    if (line == "data_dir = \"\"") line = "data_dir = \"/data/pg\"";
    if (line == "[[tls.role]]") break;  // roles need certificates
    result += line + "\n";
    start = end + 1;
  }
  return result;
}

TEST(ConfigTest, DefaultTextNamesEveryOptionAndMeansTheDefaults) {
  const std::string text = DefaultConfigText();
  for (const Option& option : Options())
    EXPECT_THAT(text, HasSubstr("\n#" + std::string(option.key) + " = "));
  ASSERT_OK_AND_ASSIGN(const AgentConfig written, Parse(Uncommented(text)));
  ASSERT_OK_AND_ASSIGN(const AgentConfig plain, Parse(kMinimal));
  for (const Option& option : Options()) {
    std::visit([&](auto target) { EXPECT_TRUE(written.*target == plain.*target) << option.key; },
               option.target);
  }
}

TEST(ConfigTest, EveryOptionIsReadAndOfTheWrongTypeIsRejected) {
  for (const Option& option : Options()) {
    SCOPED_TRACE(std::string(option.section) + "." + std::string(option.key));
    const std::string section = "[" + std::string(option.section) + "]\n";
    const std::string data = option.section == "postgres" ? "" : kMinimal;
    const std::string wrong = data + section + std::string(option.key) + " = [1]\n";
    const std::string name = std::string(option.section) + "." + std::string(option.key);
    EXPECT_THAT(Parse(wrong), Rejected(name + ": must be"));
    if (option.rule == TextRule::kRequiredPath || option.rule == TextRule::kPath) {
      EXPECT_THAT(Parse(data + section + std::string(option.key) + " = \"relative\"\n"),
                  Rejected(name));
    }
    if (option.least != 0 || option.most != 0) {
      for (const char* value : {"-1", "99999999999999", "\"-1h\"", "\"99999h\"", "\"9999TiB\""}) {
        EXPECT_THAT(Parse(data + section + std::string(option.key) + " = " + value + "\n"),
                    Rejected(name));
      }
    }
  }
}

TEST(ConfigTest, AGateNeedsAddressesOfItsOwn) {
  const std::string gate = "[gate]\nenabled = true\n";
  EXPECT_OK(ParseAfterMinimal(gate).status());
  EXPECT_THAT(ParseAfterMinimal(gate + "listen = \"\"\n"), Rejected("gate.listen"));
  EXPECT_THAT(ParseAfterMinimal(gate + "listen = \"127.0.0.1:0\"\n"), Rejected("port"));
  EXPECT_THAT(ParseAfterMinimal(gate + "read_only_listen = \"127.0.0.1:6432\"\n"),
              Rejected("gate.listen"));
  const std::string trust = gate + "auth_type = \"trust\"\n";
  EXPECT_OK(ParseAfterMinimal(trust).status());
  EXPECT_THAT(ParseAfterMinimal(trust + "listen = \"0.0.0.0:6432\"\n"), Rejected("loopback"));
  EXPECT_OK(ParseAfterMinimal("[gate]\nlisten = \"127.0.0.1:0\"\n").status()) << "it is off";
  EXPECT_THAT(ParseAfterMinimal(gate + "client_tls = \"require\"\n"), Rejected("gate.certificate"));
  EXPECT_THAT(ParseAfterMinimal(gate + "server_tls = \"verify-full\"\n"),
              Rejected("gate.server_ca"));
  EXPECT_THAT(ParseAfterMinimal("[agent]\nstate_dir = \"/" + std::string(80, 'x') + "\"\n" + gate),
              Rejected("unix socket"));
}

TEST(ConfigTest, ValuesOfEveryTypeAreRead) {
  ASSERT_OK_AND_ASSIGN(const AgentConfig config, ParseAfterMinimal(R"(
port = 6543
restart_window = "1h30m"
[backup]
memory = "1GiB"
codec = "lz4"
[disk]
probe_enabled = false
probe_read_interval = "250ms"
)"));
  EXPECT_EQ(config.pg_port, 6543);
  EXPECT_EQ(config.pg_restart_window, absl::Minutes(90));
  EXPECT_EQ(config.backup_memory, ByteCount{kGiB});
  EXPECT_EQ(config.backup_codec, "lz4");
  EXPECT_FALSE(config.probe_enabled);
  EXPECT_EQ(config.probe_read_interval, absl::Milliseconds(250));
  ASSERT_OK_AND_ASSIGN(const AgentConfig number,
                       ParseAfterMinimal("[backup]\nmemory = 67108864\n"));
  EXPECT_EQ(number.backup_memory, ByteCount{64 * kMiB});
}

TEST(ConfigTest, ErrorNamesFileLineOptionAndWhatIsAllowed) {
  EXPECT_THAT(ParseAfterMinimal("[backup]\ncodec = \"gzip\"\n"),
              Rejected("agent.toml:4: backup.codec = \"gzip\": must be one of zstd, lz4, none"));
  EXPECT_THAT(ParseAfterMinimal("[agent]\nlog_level = \"verbose\"\n"),
              Rejected("agent.log_level = \"verbose\": must be one of trace, debug, info, "));
  EXPECT_THAT(ParseAfterMinimal("port = 0\n"),
              Rejected("agent.toml:3: postgres.port = 0: must be a whole number from "
                       "1 to 65535"));
}

TEST(ConfigTest, UnknownOptionSuggestsTheNearest) {
  EXPECT_THAT(ParseAfterMinimal("prot = 5432\n"),
              Rejected("agent.toml:3: postgres.prot: unknown option. HINT: did you mean port?"));
  EXPECT_THAT(ParseAfterMinimal("[bakcup]\nlevel = 1\n"),
              Rejected("bakcup: unknown section. HINT: did you mean backup?"));
  EXPECT_THAT(ParseAfterMinimal("[backup]\ncompletely_different = 1\n"),
              Rejected("HINT: known: codec, io_engine"));
}

TEST(ConfigTest, EachClassOfFaultMayHaveAReactionOfItsOwn) {
  ASSERT_OK_AND_ASSIGN(
      const AgentConfig config,
      ParseAfterMinimal("[disk]\nreaction = \"observe\"\n[disk.reactions]\ngone = \"demote\"\n"));
  EXPECT_EQ(config.disk_reaction, "observe");
  EXPECT_EQ(config.disk_reactions, (std::map<std::string, std::string>{{"gone", "demote"}}));
  EXPECT_THAT(EffectiveConfigText(config), HasSubstr("\n[disk.reactions]\ngone = \"demote\"\n"));
  EXPECT_THAT(ParseAfterMinimal("[disk.reactions]\nburning = \"drain\"\n"),
              Rejected("agent.toml:4: disk.reactions.burning: unknown class of fault. HINT: known: "
                       "media_error, write_error, "));
  EXPECT_THAT(ParseAfterMinimal("[disk.reactions]\ngone = \"panic\"\n"),
              Rejected("disk.reactions.gone: must be one of observe, drain, demote"));
  EXPECT_THAT(ParseAfterMinimal("[disk]\nreactions = 3\n"), Rejected("[disk.reactions]"));
  ASSERT_OK_AND_ASSIGN(const AgentConfig written, Parse(Uncommented(DefaultConfigText())));
  for (const FaultReaction& each : kFaultReactions) {
    EXPECT_EQ(written.disk_reactions.at(std::string(each.fault_class)), each.reaction);
  }
}

TEST(ConfigTest, AWatchdogIsADeviceThatProbesFeed) {
  EXPECT_OK(ParseAfterMinimal("[disk]\nwatchdog = \"/dev/watchdog0\"\n").status());
  EXPECT_THAT(ParseAfterMinimal("[disk]\nwatchdog = \"/dev/sda\"\n"), Rejected("disk.watchdog"));
  EXPECT_THAT(ParseAfterMinimal("[disk]\nwatchdog = \"/dev/watchdog\"\nprobe_enabled = false\n"),
              Rejected("disk.probe_enabled"));
}

TEST(ConfigTest, SyntaxErrorNamesTheLine) {
  EXPECT_THAT(Parse("[postgres]\ndata_dir = /data\n"), Rejected("agent.toml:2: "));
  EXPECT_THAT(Parse("postgres = 3\n"), Rejected("postgres: must be a section"));
}

TEST(ConfigTest, MissingDataDirectoryIsAnError) {
  EXPECT_THAT(Parse(""), Rejected("agent.toml: postgres.data_dir: must be given"));
}

TEST(ConfigTest, ControlCharactersAreRejectedAndNotEchoed) {
  const auto result = ParseAfterMinimal("[agent]\nnode_id = \"a\\u0000b\\u001b[31m\"\n");
  EXPECT_THAT(result, Rejected("agent.node_id: must not hold control characters"));
}

TEST(ConfigTest, TlsFilesBelongTogether) {
  EXPECT_THAT(ParseAfterMinimal("[tls]\ncertificate = \"/c\"\nkey = \"/k\"\n"),
              Rejected("belong together"));
  EXPECT_OK(ParseAfterMinimal("[tls]\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\n")
                .status());
}

constexpr const char* kTls = "[tls]\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\n";

TEST(ConfigTest, RolesAreRead) {
  ASSERT_OK_AND_ASSIGN(
      const AgentConfig config,
      ParseAfterMinimal(std::string(kTls) +
                        "[[tls.role]]\nsan = \"a.example\"\nrole = \"viewer\"\n"
                        "[[tls.role]]\nsan = \"spiffe://x/o\"\nrole = \"orchestrator\"\n"));
  ASSERT_EQ(config.role_bindings.size(), 2u);
  EXPECT_EQ(config.role_bindings[1].san, "spiffe://x/o");
  EXPECT_EQ(config.role_bindings[1].role, "orchestrator");
}

TEST(ConfigTest, BadRolesAreRejected) {
  const std::string tls = kTls;
  EXPECT_THAT(ParseAfterMinimal(tls + "[[tls.role]]\nsan = \"a\"\nrole = \"root\"\n"),
              Rejected("must be one of viewer"));
  EXPECT_THAT(ParseAfterMinimal(tls + "[[tls.role]]\nrole = \"viewer\"\n"),
              Rejected("san is missing"));
  EXPECT_THAT(ParseAfterMinimal(tls + "[[tls.role]]\nsam = \"a\"\n"),
              Rejected("did you mean san?"));
  EXPECT_THAT(ParseAfterMinimal(tls + "role = \"viewer\"\n"),
              Rejected("must be an array of tables"));
  EXPECT_THAT(ParseAfterMinimal("[[tls.role]]\nsan = \"a\"\nrole = \"viewer\"\n"),
              Rejected("roles need"));
}

TEST(ConfigTest, PlainTcpIsForLoopbackOnly) {
  for (const char* address : {"127.0.0.1:0", "localhost:7420", "[::1]:7420"}) {
    EXPECT_OK(ParseAfterMinimal("[agent]\nlisten = \"" + std::string(address) + "\"\n").status())
        << address;
  }
  EXPECT_THAT(ParseAfterMinimal("[agent]\nlisten = \"0.0.0.0:7420\"\n"), Rejected("without TLS"));
  EXPECT_OK(ParseAfterMinimal("[agent]\nlisten = \"0.0.0.0:7420\"\n" + std::string(kTls)).status());
  for (const char* address :
       {"7420", ":7420", "host:", "host:70000", "host:x", "::1:7420", "a b:1"}) {
    EXPECT_THAT(ParseAfterMinimal("[agent]\nlisten = \"" + std::string(address) + "\"\n"),
                Rejected("host:port"))
        << address;
  }
}

TEST(ConfigTest, NothingOfTheAgentLivesInTheDataDirectory) {
  EXPECT_THAT(ParseAfterMinimal("[agent]\nstate_dir = \"/data/pg/state\"\n"),
              Rejected("agent.state_dir"));
  EXPECT_THAT(ParseAfterMinimal("wal_dir = \"/data/pg\"\n"), Rejected("postgres.wal_dir"));
  EXPECT_THAT(ParseAfterMinimal("[repository]\npath = \"/data/pg/repo\"\n"),
              Rejected("repository.path"));
  EXPECT_THAT(ParseAfterMinimal("[recorder]\ndirectory = \"/data/pg/ring\"\n"),
              Rejected("recorder.directory"));
  EXPECT_OK(ParseAfterMinimal("wal_dir = \"/data/pg-wal\"\n").status());
}

TEST(ConfigTest, SocketsDiffer) {
  EXPECT_THAT(ParseAfterMinimal("[agent]\nwal_socket = \"/run/metal/agent.sock\"\n"),
              Rejected("agent.wal_socket"));
}

TEST(ConfigTest, WhatIsInForceIsAConfigurationThatSaysTheSame) {
  ASSERT_OK_AND_ASSIGN(
      const AgentConfig config,
      ParseAfterMinimal("restart_window = \"90s\"\n[backup]\nmemory = \"80MiB\"\n"
                        "[gate]\nlisten = \"127.0.0.1:6433\"\n[recorder]\nsize = 2097152\n"));
  const std::string text = EffectiveConfigText(config);
  EXPECT_THAT(text, HasSubstr("restart_window = \"1m30s\"\n"));
  EXPECT_THAT(text, HasSubstr("size = \"2097152\"\n"));
  EXPECT_THAT(text, HasSubstr("/recorder\"\n")) << "what follows from others is there too";
  ASSERT_OK_AND_ASSIGN(const AgentConfig again, ParseConfig(text, "again"));
  EXPECT_EQ(EffectiveConfigText(again), text);
}

TEST(LoadConfigTest, MissingFileTellsHowToMakeOne) {
  EXPECT_THAT(LoadConfig("/no/such/agent.toml"),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(StartsWith("read configuration: "),
                             HasSubstr("HINT: metal-agent --print-default-config"))));
}

TEST(LoadConfigTest, ReadsTheFile) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(const AgentConfig config, LoadConfig(dir.Write("agent.toml", kMinimal)));
  EXPECT_EQ(config.pg_data_dir, "/data/pg");
}

}  // namespace
}  // namespace metal::base
