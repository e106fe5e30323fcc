#include "tools/metalctl/shard/shard_config.h"

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::shard {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::StatusIs;

constexpr const char* kNodes = R"(
[[node]]
id = "a"
agent = "10.0.0.1:7420"
postgres = "10.0.0.1:5432"
[[node]]
id = "db-B.2"
agent = "unix:/run/b.sock"
postgres = "/run/b:5433"
gate = "[::1]:6432"
)";

absl::StatusOr<ShardConfig> Parse(const std::string& head, const std::string& nodes = kNodes) {
  return ParseShardConfig(head + nodes, "/etc/metal/shard.toml");
}

TEST(ShardConfigTest, ReadsWhatIsGivenAndDefaultsTheRest) {
  ASSERT_OK_AND_ASSIGN(const ShardConfig config, Parse("[shard]\nname = \"orders\""));
  EXPECT_EQ(config.name, "orders");
  EXPECT_EQ(config.orchestrator, "metalctl");
  EXPECT_EQ(config.policy.ToString(), "ANY 1");
  EXPECT_EQ(config.max_lag_bytes, 16u << 20);
  EXPECT_EQ(config.clone_rate, 0u);
  ASSERT_EQ(config.nodes.size(), 2u);
  EXPECT_EQ(config.nodes[1].postgres, (HostPort{"/run/b", 5433}));
  EXPECT_EQ(config.nodes[1].gate.ToString(), "[::1]:6432");
  EXPECT_FALSE(config.nodes[0].gate.is_set());
  EXPECT_EQ(config.Find("db-B.2"), 1u);
  EXPECT_EQ(config.Find("c"), std::nullopt);
  EXPECT_EQ(config.Ids(), "a, db-B.2");
}

TEST(ShardConfigTest, PathsAreMeantFromTheFilesDirectory) {
  ASSERT_OK_AND_ASSIGN(const ShardConfig config,
                       Parse("[shard]\nname = \"orders\"\n[tls]\nca = \"ca.pem\"\n"
                             "certificate = \"/x/cert.pem\"\nkey = \"keys/me.pem\""));
  EXPECT_EQ(config.ca, "/etc/metal/ca.pem");
  EXPECT_EQ(config.cert, "/x/cert.pem");
  EXPECT_EQ(config.key, "/etc/metal/keys/me.pem");
}

TEST(ShardConfigTest, ErrorsNameFileLineKeyAndTheNextStep) {
  const auto refused = [](const std::string& head, const std::string& nodes,
                          const std::string& place, const std::string& said) {
    EXPECT_THAT(Parse(head, nodes), StatusIs(absl::StatusCode::kInvalidArgument,
                                             AllOf(StartsWith("/etc/metal/shard.toml" + place),
                                                   HasSubstr(said), HasSubstr("HINT: "))))
        << head << nodes;
  };
  const std::string name = "[shard]\nname = \"orders\"\n";
  refused("[shard]\n", kNodes, ":1: shard.name", "must be given");
  refused("", kNodes, ": shard.name", "must be given");
  refused("[shrad]\nname = \"x\"\n", kNodes, ":1: shrad", "did you mean shard?");
  refused(name + "syncronous = \"ANY 1\"\n", kNodes, ":3: shard.syncronous",
          "did you mean synchronous?");
  refused(name + "synchronous = \"SOME 1\"\n", kNodes, ":3: shard.synchronous", "\"ANY k\"");
  refused(name + "synchronous = \"ANY 0\"\n", kNodes, ":3: shard.synchronous", "\"ANY k\"");
  refused(name + "synchronous = \"ANY 2\"\n", kNodes, ": shard.synchronous", "has 1 standbys");
  refused(name + "max_lag = 5\n", kNodes, ":3: shard.max_lag", "must be a string");
  refused(name + "max_lag = \"much\"\n", kNodes, ":3: shard.max_lag", "a size");
  refused(name + "clone_rate = \"4KiB\"\n", kNodes, ":3: shard.clone_rate", "at least 1MiB");
  refused(name + "[tls]\nca = \"x\"\n", kNodes, ": tls", "or none");
  refused(name + "[shard\n", kNodes, ":3:", "TOML");
  refused(name, "[[node]]\nid = \"a\"\nagent = \"h:1\"\n", ":3: node.postgres", "must be given");
  refused(name, "[[node]]\nid = \"a b\"\n", ":4: node.id", "letters");
  refused(name, "[[node]]\nid = \"a\"\nagent = \"nowhere\"\n", ":5: node.agent", "unix:/path");
  refused(name, "[node]\nid = \"a\"\n", ":3: node", "[[node]]");
  refused(name,
          std::string(kNodes) +
              "[[node]]\nid = \"DB_b.2\"\nagent = \"x:1\"\npostgres = "
              "\"x:2\"\n",
          ":13: node DB_b.2", "slot's name");
  refused(name,
          std::string(kNodes) +
              "[[node]]\nid = \"c\"\nagent = \"10.0.0.1:7420\"\npostgres = "
              "\"x:2\"\n",
          ":13: node c", "address of node a");
  refused(name, "[[node]]\nid = \"a\"\nagent = \"h:1\"\npostgres = \"h:2\"\n", ": node", "2 to 15");
}

TEST(ShardConfigTest, TheTemplateIsAFileThatParses) {
  ASSERT_OK_AND_ASSIGN(const ShardConfig config, ParseShardConfig(ShardConfigTemplate(), "t"));
  EXPECT_EQ(config.Ids(), "a, b, c");
}

TEST(ShardConfigTest, FilesThatItNamesMustBeReadable) {
  const testing::TempDir dir;
  const std::string path = dir.path() + "/shard.toml";
  EXPECT_THAT(LoadShardConfig(path), StatusIs(absl::StatusCode::kNotFound, HasSubstr("HINT: ")));
  ASSERT_OK(base::WriteFileDurably(path, std::string("[shard]\nname = \"o\"\n[tls]\nca = \"ca\"\n"
                                                     "certificate = \"c\"\nkey = \"k\"\n") +
                                             kNodes));
  EXPECT_THAT(LoadShardConfig(path),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(dir.path() + "/ca")));
}

TEST(HostPortTest, TakesNamesAddressesAndSocketDirectories) {
  EXPECT_EQ(ParseHostPort("db1:5432"), (HostPort{"db1", 5432}));
  EXPECT_EQ(ParseHostPort("[::1]:5432"), (HostPort{"::1", 5432}));
  EXPECT_EQ(ParseHostPort("/run/x:5432"), (HostPort{"/run/x", 5432}));
  for (const char* wrong : {"", ":5432", "db1", "db1:", "db1:0", "db1:65536", "db1:5432x",
                            "::1:5432", "db1: 5432", "[]:1"}) {
    EXPECT_EQ(ParseHostPort(wrong), std::nullopt) << wrong;
  }
}

TEST(SyncPolicyTest, SaysWhatPostgresTakes) {
  const auto policy = ParseSyncPolicy("FIRST 2");
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->Setting({"b", "c-1"}), R"(FIRST 2 ("b", "c-1"))");
  for (const char* wrong : {"", "ANY", "ANY x", "any 1", "ANY -1", "ANY 1 2"}) {
    EXPECT_EQ(ParseSyncPolicy(wrong), std::nullopt) << wrong;
  }
}

TEST(SlotNameTest, HoldsOnlyWhatASlotsNameMay) {
  EXPECT_EQ(SlotName("DB-1.x_Y"), "metal_db_1_x_y");
}

}  // namespace
}  // namespace metal::shard
