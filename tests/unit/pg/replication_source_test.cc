#include "agent/pg/replication_source.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

using ::testing::HasSubstr;

ReplicationSource Sample() {
  ReplicationSource source;
  source.host = "10.1.0.2";
  source.port = 5433;
  source.user = "metal_replication";
  source.slot = "metal_b";
  source.application_name = "node-b";
  return source;
}

TEST(ReplicationSourceTest, ValuesAreQuotedForLibpq) {
  ReplicationSource source = Sample();
  source.passfile = "/a b/it's\\x";
  const std::string text = ConnInfo(source);
  EXPECT_THAT(text, HasSubstr("host='10.1.0.2' port='5433' user='metal_replication'"));
  EXPECT_THAT(text, HasSubstr(R"(passfile='/a b/it\'s\\x')"));
  EXPECT_EQ(text.find("sslmode"), std::string::npos) << "what is empty is left to libpq";
  EXPECT_EQ(AddressIn(text), "10.1.0.2:5433");
}

TEST(ReplicationSourceTest, TheAddressOfAStrangersConninfoIsRead) {
  EXPECT_EQ(AddressIn(""), "");
  EXPECT_EQ(AddressIn("user=x"), "");
  EXPECT_EQ(AddressIn("hostaddr=1.2.3.4 user=x"), "1.2.3.4:5432");
  EXPECT_EQ(AddressIn("host=/run/metal port=7"), "/run/metal:7");
  EXPECT_EQ(AddressIn("no conninfo"), "");
}

TEST(ReplicationSourceTest, FollowingTakesRestoreCommandAway) {
  const SettingPatch patch = FollowSettings(Sample());
  EXPECT_EQ(patch.at("restore_command"), std::nullopt);
  EXPECT_EQ(patch.at("primary_slot_name"), "metal_b");
  ReplicationSource without = Sample();
  without.slot.clear();
  EXPECT_EQ(FollowSettings(without).at("primary_slot_name"), std::nullopt);
  for (const auto& [name, value] : FollowNobody()) EXPECT_EQ(value, std::nullopt) << name;
}

TEST(ReplicationSourceTest, SlotsAreNamedAfterTheNode) {
  EXPECT_EQ(SlotNameOf("Node-B.eu"), "metal_node_b_eu");
  EXPECT_EQ(SlotNameOf(std::string(100, 'x')).size(), 63u);
}

TEST(ReplicationSourceTest, ANodeThatMustNotCountStreamsUnderAnotherName) {
  const std::string longest(80, 'n');  // the server cuts names off after 63 bytes
  EXPECT_NE(UncountedName(longest).substr(0, 63), longest.substr(0, 63));
  ReplicationSource source = Sample();
  const std::string counted = ConnInfo(source);
  source.application_name = UncountedName("node-b");
  EXPECT_NE(ConnInfo(source), counted);
  EXPECT_EQ(WithOwnName(ConnInfo(source), "node-b"), counted);
  EXPECT_EQ(WithOwnName(counted, "node-b"), counted);
  EXPECT_EQ(WithOwnName(ConnInfo(source), "node"), ConnInfo(source)) << "of another node";
}

TEST(ReplicationSourceTest, NobodyThereIsUnavailable) {
  ReplicationSource source = Sample();
  source.host = "/nonexistent";
  EXPECT_THAT(IdentifySource(source, absl::Seconds(5)),
              metal::testing::StatusIs(absl::StatusCode::kUnavailable, HasSubstr("/nonexistent")));
}

}  // namespace
}  // namespace metal::pg
