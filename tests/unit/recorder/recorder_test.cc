#include "agent/recorder/recorder.h"

#include <memory>
#include <string>

#include "agent/base/file.h"
#include "agent/recorder/probe_sampler.h"
#include "agent/recorder/recorded_events.h"
#include "agent/recorder/ring_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/disk/throttled_disk.h"

namespace metal::recorder {
namespace {

constexpr absl::Duration kLong = absl::Seconds(30);

std::vector<Record> RecordsIn(const std::string& path) {
  std::vector<Record> records;
  EXPECT_OK(ReadRing(path, [&](const Record& record) {
    records.push_back(record);
    return true;
  }));
  return records;
}

void PutNumber(Recorder& recorder, int64_t number, size_t filler = 0) {
  Entry entry(RecordKind::kRpc);
  recorder.Put(entry.Add("number", number).Add("filler", std::string(filler, 'x')));
}

TEST(RecorderTest, RecordsHaveBothClocksAndSurviveARestart) {
  const testing::TempDir dir;
  RecorderOptions options{.path = dir.File("recorder/ring"), .size = {base::kMiB}};
  const absl::Time before = absl::Now();
  for (int life = 0; life < 2; ++life) {
    Recorder recorder(options, base::RealClock());
    PutNumber(recorder, life);
    ASSERT_TRUE(recorder.Flush(kLong));
    EXPECT_EQ(recorder.State().written, 1u);
    EXPECT_EQ(recorder.State().error, "");
  }
  const auto records = RecordsIn(options.path);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[1].sequence, 2u);
  EXPECT_EQ(records[1].Find("number"), "1");
  EXPECT_GE(records[0].time, before - absl::Seconds(1));
  EXPECT_GT(records[1].since_boot, records[0].since_boot);
}

TEST(RecorderTest, AnEventIsRecordedWithItsAttributesAndStillLogged) {
  const testing::TempDir dir;
  const auto recorder = std::make_shared<Recorder>(
      RecorderOptions{.path = dir.File("ring"), .size = {base::kMiB}}, base::RealClock());
  auto log = std::make_unique<testing::RecordedEvents>();
  testing::RecordedEvents& logged = *log;
  std::string seen;
  RecordedEvents events(std::move(log), recorder,
                        [&](const observe::Event& event) { seen = event.type; });
  observe::Event event;
  event.type = "disk.media_error";
  event.severity = observe::Severity::kError;
  event.attributes = {{"kernel_line", "nvme0n1: I/O error"}, {"type", "other"}};
  events.Append(event);
  ASSERT_TRUE(recorder->Flush(kLong));
  EXPECT_EQ(seen, "disk.media_error");
  EXPECT_EQ(logged.Count("disk.media_error"), 1u);
  const auto records = RecordsIn(recorder->path());
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].Find("type"), "disk.media_error");
  EXPECT_EQ(records[0].Find("severity"), "error");
  EXPECT_EQ(records[0].Find("@kernel_line"), "nvme0n1: I/O error");
  EXPECT_EQ(records[0].Find("@type"), "other");
}

TEST(RecorderTest, ARingThatCannotBeMadeDropsAndCounts) {
  const testing::TempDir dir;
  const std::string file = dir.Write("file", "");
  Recorder recorder({.path = file + "/ring", .size = {base::kMiB}}, base::RealClock());
  for (int i = 0; i < 10; ++i) {
    PutNumber(recorder, i);
    ASSERT_TRUE(recorder.Flush(kLong));
  }
  EXPECT_EQ(recorder.State().dropped, 10u);
  EXPECT_THAT(recorder.State().error, ::testing::HasSubstr("Not a directory"));
}

TEST(RecorderTest, ARingThatCanBeMadeAgainSaysHowManyWereLost) {
  const testing::TempDir dir;
  const std::string file = dir.Write("file", "");
  Recorder recorder(
      {.path = file + "/ring", .size = {base::kMiB}, .retry_after = absl::ZeroDuration()},
      base::RealClock());
  for (int i = 0; i < 3; ++i) {
    PutNumber(recorder, i);
    ASSERT_TRUE(recorder.Flush(kLong));
  }
  ASSERT_OK(base::RemoveTree(file));
  for (int i = 3; i < 6; ++i) {
    PutNumber(recorder, i);
    ASSERT_TRUE(recorder.Flush(kLong));
  }
  std::string lost;
  for (const Record& record : RecordsIn(recorder.path())) {
    if (record.kind == RecordKind::kDropped) lost = record.Find("count");
  }
  EXPECT_EQ(lost, "3");
  EXPECT_EQ(recorder.State().error, "");
}

TEST(RealStallTest, ADiskThatHangsKeepsNoCallerWaitingAndLossesAreCounted) {
  testing::ThrottledDisk disk("ext4");
  if (!disk.reason().empty()) GTEST_SKIP() << disk.reason();
  auto recorder =
      std::make_unique<Recorder>(RecorderOptions{.path = disk.mount_point() + "/ring",
                                                 .size = {base::kMiB},
                                                 .queue_bytes = 64 * 1024,
                                                 .sync_interval = absl::Milliseconds(10)},
                                 base::RealClock());
  PutNumber(*recorder, 0);
  ASSERT_TRUE(recorder->Flush(kLong));
  ASSERT_TRUE(disk.Hold(true));
  const absl::Time begin = absl::Now();
  int64_t number = 1;
  while (recorder->State().dropped == 0) {
    ASSERT_LT(absl::Now() - begin, kLong);
    PutNumber(*recorder, number++, 200);
    base::RealClock().Sleep(absl::Microseconds(200));
  }
  const absl::Time asked = absl::Now();
  for (int i = 0; i < 10'000; ++i) PutNumber(*recorder, number++, 200);
  EXPECT_LT(absl::Now() - asked, absl::Seconds(5)) << "10,000 records into a full queue";
  EXPECT_GE(recorder->State().dropped, 10'000u);
  EXPECT_FALSE(recorder->Waiting().empty()) << "what was before the loss is still in memory";
  ASSERT_TRUE(disk.Hold(false));
  ASSERT_TRUE(recorder->Flush(kLong));
  PutNumber(*recorder, -1);
  ASSERT_TRUE(recorder->Flush(kLong));
  int64_t lost = 0;
  for (const Record& record : RecordsIn(recorder->path())) {
    if (record.kind == RecordKind::kDropped) lost += std::stoll(std::string(record.Find("count")));
  }
  EXPECT_GE(lost, 10'000);
  recorder.reset();
}

TEST(RealStallTest, TheEndDoesNotWaitForADiskThatHangs) {
  testing::ThrottledDisk disk("ext4");
  if (!disk.reason().empty()) GTEST_SKIP() << disk.reason();
  auto recorder =
      std::make_unique<Recorder>(RecorderOptions{.path = disk.mount_point() + "/ring",
                                                 .size = {base::kMiB},
                                                 .sync_interval = absl::Milliseconds(1)},
                                 base::RealClock());
  PutNumber(*recorder, 0);
  ASSERT_TRUE(recorder->Flush(kLong));
  ASSERT_TRUE(disk.Hold(true));
  PutNumber(*recorder, 1);
  const absl::Time asked = absl::Now();
  recorder.reset();
  EXPECT_LT(absl::Now() - asked, absl::Seconds(5));
  ASSERT_TRUE(disk.Hold(false));
}

TEST(ProbeSamplerTest, EachRoleIsRecordedAgainAndAgain) {
  const testing::TempDir dir;
  const auto recorder = std::make_shared<Recorder>(
      RecorderOptions{.path = dir.File("ring"), .size = {base::kMiB}}, base::RealClock());
  {
    ProbeSample sample;
    sample.role = "data";
    sample.read.count = 2;
    sample.read.p50 = absl::Microseconds(90);
    sample.read.p99 = sample.read.max = absl::Microseconds(120);
    sample.oldest_outstanding = absl::Seconds(3);
    ProbeSampler sampler(
        recorder, [&] { return std::vector<ProbeSample>{sample}; }, absl::Milliseconds(5));
    const absl::Time begin = absl::Now();
    while (recorder->State().written < 3 && absl::Now() - begin < kLong)
      base::RealClock().Sleep(absl::Milliseconds(1));
  }
  const auto records = RecordsIn(recorder->path());
  ASSERT_GE(records.size(), 3u);
  EXPECT_EQ(records[2].Find("role"), "data");
  EXPECT_EQ(records[2].Find("read_p99_us"), "120");
  EXPECT_EQ(records[2].Find("oldest_us"), "3000000");
  EXPECT_EQ(records[2].Find("write_count"), "0");
  EXPECT_EQ(records[2].Find("write_p50_us"), "") << "nothing was measured";
}

}  // namespace
}  // namespace metal::recorder
