#include "agent/node/control_witness.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <functional>
#include <string>
#include <vector>

#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/recorder/ring_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

using ::testing::HasSubstr;

class ControlWitnessTest : public ::testing::Test {
 protected:
  std::vector<recorder::Record> Records() {
    EXPECT_TRUE(recorder_->Flush(absl::Seconds(30)));
    std::vector<recorder::Record> records;
    if (recorder_->State().written == 0) return records;
    EXPECT_OK(recorder::ReadRing(recorder_->path(), [&](const recorder::Record& record) {
      records.push_back(record);
      return true;
    }));
    return records;
  }

  const testing::TempDir dir_;
  const std::shared_ptr<recorder::Recorder> recorder_ = std::make_shared<recorder::Recorder>(
      recorder::RecorderOptions{.path = dir_.File("ring"), .size = {base::kMiB}},
      base::RealClock());
  ControlWitness witness_{dir_.File("data"), recorder_};
};

TEST_F(ControlWitnessTest, OnlyWhatMovesTheServerIsRecorded) {
  witness_.Before("CreateBackup", "operations/1");
  witness_.After("RunStorageProbe", "operations/2");
  EXPECT_EQ(Records().size(), 0u);
  witness_.Before("Promote", "operations/3");
  witness_.After("Promote", "operations/3");
  // On a busy machine what is read too late comes behind the words that say so.
  std::vector<recorder::Record> records;
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  do {
    records = Records();
    std::erase_if(records, [](const recorder::Record& each) {
      return std::string(each.Find("error")).find("did not answer") != std::string::npos;
    });
  } while (records.size() < 2 && absl::Now() < deadline);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].Find("moment"), "before Promote");
  EXPECT_EQ(records[1].Find("moment"), "after Promote");
  EXPECT_EQ(records[1].Find("subject"), "operations/3");
  EXPECT_THAT(std::string(records[0].Find("error")), HasSubstr("pg_control"));
}

TEST_F(ControlWitnessTest, AllThatStopsOrRestartsTheServerIsRecorded) {
  for (const char* kind :
       {"BeginTerm", "Fence", "EnforceFence", "EndLease", "EnforceLeaseEnd", "FenceSickDisk"})
    EXPECT_TRUE(MovesServer(kind)) << kind;
  for (const char* kind : {"Unfence", "CreateBackup", "SetSynchronousStandbys"})
    EXPECT_FALSE(MovesServer(kind)) << kind;
}

// A file that is a FIFO without a writer hangs whoever opens it, as a dead disk does.
TEST_F(ControlWitnessTest, AFenceDoesNotWaitForADiskThatHangs) {
  dir_.Write("data/global/keep", "");
  ASSERT_EQ(::mkfifo(dir_.File("data/global/pg_control").c_str(), 0600), 0);
  const auto took = [](const std::function<void()>& call) {
    const absl::Time begin = absl::Now();
    call();
    return absl::Now() - begin;
  };
  EXPECT_LT(took([&] { witness_.Before("FenceSickDisk", "operations/1"); }),
            absl::Milliseconds(100));
  EXPECT_LT(took([&] { witness_.Before("Fence", "operations/2"); }), absl::Milliseconds(150));
  EXPECT_GE(took([&] { witness_.Before("Promote", "operations/3"); }), absl::Milliseconds(200));
  // Of the one that waits for nothing no record says that nothing came.
  const auto records = Records();
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].Find("moment"), "before Fence");
  EXPECT_THAT(std::string(records[0].Find("error")), HasSubstr("20ms"));
  EXPECT_EQ(records[1].Find("moment"), "before Promote");
  // Lets those go who hang.
  base::UniqueFd writer(::open(dir_.File("data/global/pg_control").c_str(), O_WRONLY));
}

TEST_F(ControlWitnessTest, AServerThatCameOrWentIsLookedAt) {
  observe::Event event;
  event.type = "postgres.lock";
  witness_.Note(event);
  event.type = "postgres.crashed";
  event.subject = "postgres";
  witness_.Note(event);
  const absl::Time begin = absl::Now();
  while (Records().empty() && absl::Now() - begin < absl::Seconds(30))
    base::RealClock().Sleep(absl::Milliseconds(1));
  ASSERT_EQ(Records().size(), 1u);
  EXPECT_EQ(Records()[0].Find("moment"), "at postgres.crashed");
}

TEST_F(ControlWitnessTest, WhatPgControlSaysIsRecordedInFull) {
  pg::ControlFile control;
  control.state = pg::ControlState::kInProduction;
  control.timeline = 4;
  control.checkpoint = base::Lsn{0x35A000028};
  RecordControl(*recorder_, "before start", "postgres", control);
  const auto records = Records();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].Find("state"), "in production");
  EXPECT_EQ(records[0].Find("timeline"), "4");
  EXPECT_EQ(records[0].Find("checkpoint"), "3/5A000028");
}

}  // namespace
}  // namespace metal::node
