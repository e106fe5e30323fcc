#include "agent/pg/hba.h"

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

TEST(HbaTest, TheAgentConnectsByPeerThroughAMap) {
  const HbaOptions options{"boss", "metal", {"10.0.0.0/8"}, ""};
  EXPECT_THAT(ManagedHbaBlock(options), HasSubstr("local all \"boss\" peer map=metal\n"));
  EXPECT_THAT(ManagedHbaBlock(options), HasSubstr("local replication \"boss\" peer map=metal\n"));
  EXPECT_THAT(ManagedHbaBlock(options),
              HasSubstr("host replication all 10.0.0.0/8 scram-sha-256\n"));
  EXPECT_THAT(ManagedIdentBlock(options), HasSubstr("metal \"metal\" \"boss\"\n"));
  EXPECT_THAT(ManagedIdentBlock(options), HasSubstr("metal \"boss\" \"boss\"\n"));
}

TEST(HbaTest, AReplicationRoleMayAlsoReadTheDatabaseThatPgRewindReads) {
  const std::string block = ManagedHbaBlock({"boss", "metal", {"samenet"}, "metal_replication"});
  EXPECT_THAT(block, HasSubstr("host replication \"metal_replication\" samenet scram-sha-256\n"));
  EXPECT_THAT(block, HasSubstr("host \"postgres\" \"metal_replication\" samenet scram-sha-256\n"));
}

TEST(HbaTest, NamesAreQuoted) {
  EXPECT_EQ(QuoteHbaToken("all"), "\"all\"");
  EXPECT_EQ(QuoteHbaToken("a \"b\""), "\"a \"\"b\"\"\"");
}

TEST(HbaTest, TheBlockStaysOnTopAndTheUsersLinesStayAsTheyAre) {
  const std::string block = ManagedHbaBlock({});
  const std::string user = "# mine\nlocal all all trust\n";
  const std::string once = WithManagedBlockOnTop(user, block);
  EXPECT_EQ(once, block + user);
  EXPECT_EQ(WithManagedBlockOnTop(once, block), once);
  EXPECT_EQ(WithManagedBlockOnTop("host all all all reject\n" + once, block),
            block + "host all all all reject\n" + user);
  const std::string other = ManagedHbaBlock({"boss", "metal", {}, ""});
  EXPECT_EQ(WithManagedBlockOnTop(once, other), other + user);
}

TEST(HbaTest, ABlockWithoutItsEndLosesOnlyItsFirstLine) {
  const std::string block = ManagedHbaBlock({});
  const std::string broken = block.substr(0, block.find('\n') + 1) + "local all all trust\n";
  EXPECT_EQ(WithManagedBlockOnTop(broken, block), block + "local all all trust\n");
}

TEST(HbaTest, InstallIsIdempotentAndRefusesWhatAFileCannotCarry) {
  testing::TempDir dir;
  dir.Write("pg_hba.conf", "local all all trust\n");
  ASSERT_OK(InstallManagedHba(dir.path(), {}));
  const std::string once = *base::ReadFile(dir.File("pg_hba.conf"));
  EXPECT_TRUE(once.ends_with("local all all trust\n"));
  ASSERT_OK(InstallManagedHba(dir.path(), {}));
  EXPECT_EQ(*base::ReadFile(dir.File("pg_hba.conf")), once);
  EXPECT_TRUE(base::PathExists(dir.File("pg_ident.conf")));
  for (const HbaOptions& bad : {HbaOptions{"a\nb", "metal", {}, ""}, HbaOptions{"boss", "", {}, ""},
                                HbaOptions{"boss", "metal", {"all trust"}, ""}}) {
    EXPECT_THAT(InstallManagedHba(dir.path(), bad), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_EQ(*base::ReadFile(dir.File("pg_hba.conf")), once);
}

}  // namespace
}  // namespace metal::pg
