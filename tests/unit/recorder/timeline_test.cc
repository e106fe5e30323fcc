#include "agent/recorder/timeline.h"

#include <string>

#include "agent/recorder/json_text.h"
#include "agent/recorder/kernel_log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::recorder {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Record RecordOf(RecordKind kind, std::vector<std::pair<std::string, std::string>> fields) {
  Record record;
  record.kind = kind;
  record.time = absl::FromUnixMillis(1'800'000'000'123);
  record.fields = std::move(fields);
  return record;
}

class TimelineTest : public ::testing::Test {
 protected:
  std::string Page() {
    TimelineHead head;
    head.node = "db-1";
    head.captured = absl::FromUnixSeconds(1'800'000'010);
    return timeline_.Page(head);
  }
  const Redactor redactor_;
  Timeline timeline_{redactor_};
};

TEST_F(TimelineTest, ThePageNeedsNothingFromANetwork) {
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const char* foreign : {"src=", "@import", "url(http", "<link", "fetch("})
    EXPECT_THAT(page, Not(HasSubstr(foreign)));
  EXPECT_THAT(page, Not(HasSubstr("METAL_TIMELINE_DATA")));
}

TEST_F(TimelineTest, TheKernelsLineStandsAtItsMoment) {
  timeline_.Add(RecordOf(RecordKind::kEvent, {{"type", "disk.media_error"},
                                              {"severity", "error"},
                                              {"subject", "nvme0n1"},
                                              {"message", "cannot read"},
                                              {"@kernel_line", "nvme0n1: I/O Error <3>"}}));
  EXPECT_THAT(Page(),
              HasSubstr(R"({"t":1800000000123,"type":"disk.media_error","severity":"error",)"
                        R"("subject":"nvme0n1","message":"cannot read",)"
                        R"("kernel":"nvme0n1: I/O Error \u003c3>")"));
}

TEST_F(TimelineTest, ALineOfTheKernelsLogIsOneToo) {
  timeline_.Add(
      RecordOf(RecordKind::kEvent, {{"type", "disk.kernel_line"},
                                    {"severity", "error"},
                                    {"subject", "nvme0n1"},
                                    {"message", "kernel: nvme nvme0: Device not ready"}}));
  EXPECT_THAT(Page(), HasSubstr(R"("kernel":"nvme nvme0: Device not ready")"));
}

TEST_F(TimelineTest, SoIsOneThatIsNoEventWithItsRepeats) {
  timeline_.Add(RecordOf(RecordKind::kKernel,
                         {{"subject", "nvme0n1"}, {"class", "gone"}, {"line", "nvme0: gone"}}));
  timeline_.Add(RecordOf(
      RecordKind::kKernel,
      {{"subject", "nvme0n1"}, {"class", "gone"}, {"line", "nvme0: lost"}, {"again", "7"}}));
  EXPECT_THAT(Page(), HasSubstr(R"("kernel":"nvme0: gone")"));
  EXPECT_THAT(Page(), HasSubstr(R"("message":"7 times more within a minute: nvme0: lost")"));
}

TEST_F(TimelineTest, WhatADrivesCountersDidStandsAmongTheEvents) {
  timeline_.Add(RecordOf(RecordKind::kEvent, {{"type", "disk.stalled"}, {"message", "m"}}));
  timeline_.Add(RecordOf(RecordKind::kDrive, {{"device", "nvme0n1"},
                                              {"serial", "S1"},
                                              {"severity", "warning"},
                                              {"media_errors", "5"},
                                              {"media_errors_delta", "2"},
                                              {"bad_user_blocks", "1"},
                                              {"bad_user_blocks_delta", "-1"}}));
  EXPECT_THAT(Page(), HasSubstr("disk.stalled"));
  EXPECT_THAT(Page(), HasSubstr(R"({"t":1800000000123,"type":"disk.counters","severity":"warning",)"
                                R"("subject":"nvme0n1","message":"media_errors 5 (+2), )"
                                R"x(bad_user_blocks 1 (-1)","attributes":{"serial":"S1"}})x"));
}

TEST_F(TimelineTest, ProbesAreRowsOfNumbers) {
  timeline_.Add(RecordOf(
      RecordKind::kProbe,
      {{"role", "data"}, {"read_p50_us", "90"}, {"read_max_us", "140"}, {"oldest_us", "3000000"}}));
  EXPECT_THAT(Page(), HasSubstr(R"("probes":{"data":[[1800000000123,90,140,0,0,3000000]]})"));
}

TEST_F(TimelineTest, CallsThatOnlyLookAreLeftOutUnlessTheyFailOrAreSlow) {
  const auto call = [&](const char* rpc, const char* code, const char* took) {
    timeline_.Add(
        RecordOf(RecordKind::kRpc, {{"rpc", rpc}, {"code", code}, {"duration_us", took}}));
  };
  call("HostService/GetStatus", "OK", "90");
  EXPECT_THAT(Page(), HasSubstr("\"calls\":[]"));
  call("HostService/GetStatus", "OK", "200000");
  call("StorageService/ListDisks", "PERMISSION_DENIED", "90");
  call("ReplicationService/Fence", "OK", "90");
  EXPECT_THAT(Page(), HasSubstr("GetStatus"));
  EXPECT_THAT(Page(), HasSubstr("ListDisks"));
  EXPECT_THAT(Page(), HasSubstr("Fence"));
}

TEST_F(TimelineTest, NoTextEndsTheScript) {
  timeline_.Add(
      RecordOf(RecordKind::kEvent, {{"type", "a"}, {"message", "</script><script>alert(1)"}}));
  EXPECT_THAT(Page(), Not(HasSubstr("alert(1)</")));
  EXPECT_THAT(Page(), Not(HasSubstr("</script><script>alert")));
}

TEST_F(TimelineTest, OnlyTheNewestAreKept) {
  for (size_t i = 0; i < Timeline::kEventsMost + 5; ++i)
    timeline_.Add(RecordOf(RecordKind::kEvent, {{"type", "event-" + std::to_string(i) + "-"}}));
  EXPECT_THAT(Page(), Not(HasSubstr("event-4-")));
  EXPECT_THAT(Page(), HasSubstr("event-5-"));
}

TEST(JsonTextTest, AnyBytesBecomeAString) {
  EXPECT_EQ(JsonString("a\"\\\n\x01<\xff"), R"("a\"\\\n\u0001\u003c?")");
}

TEST(KernelLogTest, ARecordBecomesALine) {
  EXPECT_EQ(
      KernelLogLine("3,339,5140900,-;nvme nvme0: I/O 12 timeout; aborting\n SUBSYSTEM=nvme\n"),
      "[    5.140900] <3> nvme nvme0: I/O 12 timeout; aborting\n");
  EXPECT_EQ(KernelLogLine("6,1,2,-;a\\x0ab\\x1b[2J\n"), "[    0.000002] <6> a\\x0ab\\x1b[2J\n");
  for (const char* bad : {"", ";", "1,2;x", "a,b,c,d;text", "no record"})
    EXPECT_EQ(KernelLogLine(bad), "");
}

}  // namespace
}  // namespace metal::recorder
