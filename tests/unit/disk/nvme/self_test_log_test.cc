#include "agent/disk/nvme/self_test_log.h"

#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/nvme/page_fixture.h"

namespace metal::disk {
namespace {

using metal::testing::LoadPage;
using metal::testing::StatusIs;

TEST(SelfTestLogTest, EveryFieldIsReadFromItsPlace) {
  const auto log = DecodeSelfTestLog(LoadPage("self_test"));
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_EQ(log->running, 2);
  EXPECT_EQ(log->percent_done, 37);
  ASSERT_EQ(log->results.size(), 3u);
  const SelfTestResult& failed = log->results[0];
  EXPECT_EQ(SelfTestName(failed.test), "extended");
  EXPECT_EQ(SelfTestResultName(failed.result), "failed");
  EXPECT_TRUE(failed.failed());
  EXPECT_EQ(failed.segment, 3);
  EXPECT_EQ(failed.power_on_hours, 8760u);
  EXPECT_EQ(failed.name_space, 1u);
  EXPECT_EQ(failed.failing_lba, 987'654u);
  EXPECT_EQ(failed.status_type, 2);
  EXPECT_EQ(failed.status_code, 0x81);
}

TEST(SelfTestLogTest, ATestThatEndedWellHasNoFailure) {
  const auto log = DecodeSelfTestLog(LoadPage("self_test"));
  ASSERT_TRUE(log.ok());
  EXPECT_TRUE(log->results[1].passed());
  EXPECT_EQ(log->results[1].failing_lba, std::nullopt);
  EXPECT_EQ(log->results[1].status_code, std::nullopt);
  EXPECT_EQ(SelfTestResultName(log->results[2].result), "aborted by a reset");
  EXPECT_FALSE(log->results[2].passed());
  EXPECT_FALSE(log->results[2].failed());
}

TEST(SelfTestLogTest, ADriveThatNeverTestedItselfHasNoResults) {
  const auto log = DecodeSelfTestLog(std::vector<std::byte>(kSelfTestLogSize));
  ASSERT_TRUE(log.ok());
  EXPECT_TRUE(log->results.empty());
  EXPECT_EQ(log->running, 0);
}

TEST(SelfTestLogTest, AnyOtherSizeIsRejected) {
  EXPECT_THAT(DecodeSelfTestLog(std::vector<std::byte>(563)),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace metal::disk
