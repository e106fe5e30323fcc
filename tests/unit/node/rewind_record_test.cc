#include "agent/node/rewind_record.h"

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "tests/harness/file_faults.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;

class RewindRecordTest : public ::testing::Test {
 protected:
  RewindRecordTest() {
    dir_.Write("rewind/wal/000000010000000000000001", "wal");
    record_.stage = RewindStage::kRewound;
    record_.source = "10.0.0.1:5432";
    record_.system_identifier = 7123456789012345678;
    record_.source_timeline = 26;
    record_.repeatable = true;
    record_.floor = base::Lsn{0x5000060};
  }
  testing::TempDir dir_;
  RewindRecord record_;
};

TEST_F(RewindRecordTest, WhatIsStoredIsFoundAgain) {
  EXPECT_THAT(LoadRewindRecord(dir_.path()), StatusIs(absl::StatusCode::kNotFound));
  for (const RewindStage stage :
       {RewindStage::kRunning, RewindStage::kRewound, RewindStage::kStarted}) {
    record_.stage = stage;
    ASSERT_OK(StoreRewindRecord(dir_.path(), record_));
    ASSERT_OK_AND_ASSIGN(const RewindRecord found, LoadRewindRecord(dir_.path()));
    EXPECT_EQ(found.stage, stage);
    EXPECT_EQ(found.source, record_.source);
    EXPECT_EQ(found.system_identifier, record_.system_identifier);
    EXPECT_EQ(found.source_timeline, 26u);
    EXPECT_EQ(found.floor, record_.floor);
    EXPECT_TRUE(found.repeatable);
  }
}

TEST_F(RewindRecordTest, ADamagedOneIsNotGuessedAt) {
  dir_.Write("rewind/record", "stage=later\nfloor=0/1\nsystem_identifier=1\nsource_timeline=1\n");
  EXPECT_THAT(LoadRewindRecord(dir_.path()), StatusIs(absl::StatusCode::kDataLoss));
  dir_.Write("rewind/record", "stage=running\nfloor=x\nsystem_identifier=1\nsource_timeline=1\n");
  EXPECT_THAT(LoadRewindRecord(dir_.path()), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(RewindRecordTest, PowerLostWhileItIsStoredLeavesTheOldOneOrTheNew) {
  ASSERT_OK(StoreRewindRecord(dir_.path(), record_));
  RewindRecord next = record_;
  next.stage = RewindStage::kStarted;
  int at = 1;
  for (bool fired = true; fired; ++at) {
    ASSERT_OK(StoreRewindRecord(dir_.path(), record_));
    bool stored = false;
    {
      testing::FileFaults faults(dir_.path(), {at, testing::FileFaultKind::kPowerLoss});
      stored = StoreRewindRecord(dir_.path(), next).ok();
      fired = faults.fired();
    }
    ASSERT_OK_AND_ASSIGN(const RewindRecord found, LoadRewindRecord(dir_.path()));
    if (stored) {
      EXPECT_EQ(found.stage, RewindStage::kStarted);
    }
  }
  EXPECT_GT(at, 3);
}

TEST_F(RewindRecordTest, RemovingTakesTheKeptFilesToo) {
  ASSERT_OK(StoreRewindRecord(dir_.path(), record_));
  ASSERT_OK(RemoveRewindRecord(dir_.path()));
  EXPECT_FALSE(base::PathExists(RewindDirectory(dir_.path())));
  ASSERT_OK(RemoveRewindRecord(dir_.path()));
}

}  // namespace
}  // namespace metal::node
