#include "agent/node/rewind/rewind_record.h"

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

TEST_F(RewindRecordTest, TheSourcesHistoryIsKeptWhereItIsKnown) {
  ASSERT_OK(StoreRewindRecord(dir_.path(), record_));
  ASSERT_OK_AND_ASSIGN(RewindRecord found, LoadRewindRecord(dir_.path()));
  EXPECT_FALSE(found.source_history || found.source_term || found.fork) << "as older agents wrote";
  record_.fork = Fork{25, base::Lsn{0x3500000}};
  record_.source_history.emplace();  // timeline 1
  ASSERT_OK(StoreRewindRecord(dir_.path(), record_));
  ASSERT_OK_AND_ASSIGN(found, LoadRewindRecord(dir_.path()));
  EXPECT_TRUE(found.source_history && found.source_history->empty());
  record_.source_history = {{1, base::Lsn{0x3000000}}, {25, base::Lsn{0x4000000}}};
  record_.source_term = {.term = ~uint64_t{0}, .node_id = "b=\n", .start_lsn = base::Lsn{7}};
  ASSERT_OK(StoreRewindRecord(dir_.path(), record_));
  ASSERT_OK_AND_ASSIGN(found, LoadRewindRecord(dir_.path()));
  ASSERT_TRUE(found.source_history && found.source_term);
  ASSERT_EQ(found.source_history->size(), 2u);
  EXPECT_EQ(found.source_history->at(1).timeline, 25u);
  EXPECT_EQ(found.source_history->at(1).switch_lsn, base::Lsn{0x4000000});
  EXPECT_EQ(found.source_term->term, ~uint64_t{0});
  EXPECT_EQ(found.source_term->node_id, "b=\n");
  EXPECT_EQ(found.source_term->start_lsn, base::Lsn{7});
  ASSERT_TRUE(found.fork);
  EXPECT_EQ(found.fork->timeline, 25u);
  EXPECT_EQ(found.fork->lsn, base::Lsn{0x3500000});
}

TEST_F(RewindRecordTest, AnotherHistoryIsNamed) {
  observe::TermHistoryEntry row;
  row.term = 5;
  row.node_id = "b";
  row.start_lsn = base::Lsn{0x100};
  const std::vector<TimelineSwitch> history = {{25, base::Lsn{0x4000000}}};
  std::vector<observe::TermHistoryEntry> terms = {row};
  const auto difference = [&] { return DifferenceFrom(record_, {26, history, terms}); };
  EXPECT_EQ(difference(), "") << "nothing is known of it but its timeline";
  record_.source_history = history;
  record_.source_term = {.term = 5, .node_id = "b", .start_lsn = base::Lsn{0x100}};
  EXPECT_EQ(difference(), "");
  EXPECT_THAT(DifferenceFrom(record_, {27, history, terms}), ::testing::HasSubstr("timeline 27"));
  record_.source_history->at(0).switch_lsn = base::Lsn{0x4000060};
  EXPECT_THAT(difference(), ::testing::HasSubstr("began elsewhere"));
  record_.source_history = history;
  terms[0].start_lsn = base::Lsn{0x200};
  EXPECT_THAT(difference(), ::testing::HasSubstr("no term 5 of b"));
  terms[0].term = 6;  // the first of the last 16
  EXPECT_EQ(difference(), "") << "what was before is not known";
  terms.clear();
  EXPECT_THAT(difference(), ::testing::HasSubstr("no term 5 of b"));
}

TEST_F(RewindRecordTest, ADamagedOneIsNotGuessedAt) {
  dir_.Write("rewind/record", "stage=later\nfloor=0/1\nsystem_identifier=1\nsource_timeline=1\n");
  EXPECT_THAT(LoadRewindRecord(dir_.path()), StatusIs(absl::StatusCode::kDataLoss));
  dir_.Write("rewind/record",
             "stage=running\nfloor=0/1\nsystem_identifier=1\nsource_timeline=1\nsource_term=x\n");
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
