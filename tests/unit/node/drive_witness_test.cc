#include "agent/node/drive_witness.h"

#include <vector>

#include "agent/base/clock.h"
#include "agent/recorder/record_json.h"
#include "agent/recorder/ring_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

TEST(DriveWitnessTest, ARecordSaysWhichCountersChangedAndByHowMuch) {
  const testing::TempDir dir;
  recorder::Recorder ring({.path = dir.File("ring"), .size = {base::kMiB}}, base::RealClock());
  RecordCounters(ring, {.disk = "nvme0n1",
                        .serial = "0123",
                        .changes = {{"media_errors", 3, 5}, {"bad_user_blocks", 9, 2}},
                        .notable = true});
  ASSERT_TRUE(ring.Flush(absl::Seconds(30)));
  std::vector<recorder::Record> records;
  ASSERT_OK(recorder::ReadRing(ring.path(), [&](const recorder::Record& record) {
    records.push_back(record);
    return true;
  }));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_THAT(
      recorder::RecordLine(records[0], recorder::Redactor()),
      ::testing::HasSubstr(R"("kind":"drive","device":"nvme0n1","serial":"0123",)"
                           R"("severity":"warning","media_errors":5,"media_errors_delta":2,)"
                           R"("bad_user_blocks":2,"bad_user_blocks_delta":-7})"));
}

TEST(DriveWitnessTest, ALineOfTheKernelIsShownAsOne) {
  const testing::TempDir dir;
  recorder::Recorder ring({.path = dir.File("ring"), .size = {base::kMiB}}, base::RealClock());
  RecordKernelLine(ring, {"nvme0n1", "gone", "nvme nvme0: Device not ready", 0});
  RecordKernelLine(ring, {"nvme0n1", "gone", "nvme nvme0: Device not ready", 12});
  ASSERT_TRUE(ring.Flush(absl::Seconds(30)));
  std::vector<recorder::Record> records;
  ASSERT_OK(recorder::ReadRing(ring.path(), [&](const recorder::Record& record) {
    records.push_back(record);
    return true;
  }));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(recorder::KernelLineOf(records[0]), "nvme nvme0: Device not ready");
  EXPECT_EQ(records[0].Find("again"), "");
  EXPECT_THAT(recorder::RecordLine(records[1], recorder::Redactor()),
              ::testing::HasSubstr(R"("kind":"kernel","subject":"nvme0n1","class":"gone",)"
                                   R"("line":"nvme nvme0: Device not ready","again":12})"));
}

}  // namespace
}  // namespace metal::node
