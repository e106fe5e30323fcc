#include "agent/disk/nvme/persistent_events.h"

#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/nvme/page_fixture.h"

namespace metal::disk {
namespace {

using metal::testing::LoadPage;
using metal::testing::Put;
using metal::testing::StatusIs;
using ::testing::HasSubstr;

TEST(PersistentEventsTest, TheHeaderIsReadFromItsPlace) {
  const auto log = DecodePersistentEvents(LoadPage("persistent_events"));
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_EQ(log->total_events, 5u);
  EXPECT_EQ(log->length, 1262u);
  EXPECT_EQ(log->revision, 2);
  EXPECT_EQ(log->generation, 12);
  EXPECT_EQ(log->timestamp_ms, 1'732'012'343'296u);
  EXPECT_EQ(log->power_on_hours, 8761u);
  EXPECT_EQ(log->power_cycles, 23u);
  EXPECT_EQ(log->serial, "METAL0001");
  EXPECT_EQ(log->model, "Example Data Centre SSD");
  EXPECT_TRUE(log->complete);
}

TEST(PersistentEventsTest, EachEventHasWhatItsTypeHas) {
  const auto log = DecodePersistentEvents(LoadPage("persistent_events"));
  ASSERT_TRUE(log.ok());
  ASSERT_EQ(log->events.size(), 5u);
  const PersistentEvent& hardware = log->events[0];
  EXPECT_EQ(hardware.type, kEventHardwareError);
  EXPECT_EQ(hardware.controller, 4);
  EXPECT_EQ(hardware.timestamp_ms, 1'732'012'343'296u - 65'536u);
  EXPECT_TRUE(hardware.clock_was_set);
  ASSERT_TRUE(hardware.hardware_error);
  EXPECT_EQ(HardwareErrorName(*hardware.hardware_error), "controller fatal status");
  EXPECT_EQ(log->events[1].type, kEventThermalExcursion);
  EXPECT_EQ(log->events[1].excursion, 5);  // behind the vendor's two bytes
  EXPECT_EQ(log->events[1].threshold, 2);
  EXPECT_EQ(log->events[2].previous_timestamp_ms, 86'400'000u);
  EXPECT_EQ(log->events[3].firmware, "EX1A3Q");
  EXPECT_EQ(log->events[3].resets, 2u);
  EXPECT_FALSE(log->events[3].clock_was_set);
  ASSERT_TRUE(log->events[4].smart);
  EXPECT_EQ(log->events[4].smart->critical_warning, kReliabilityDegraded);
  EXPECT_EQ(log->events[4].smart->media_errors, 2u);
}

TEST(PersistentEventsTest, ALogThatIsCutAnywhereGivesTheEventsBeforeTheCut) {
  const metal::testing::Page whole = LoadPage("persistent_events");
  size_t before = 0;
  for (size_t size = kPersistentEventHeaderSize; size < whole.size(); ++size) {
    const auto log = DecodePersistentEvents(std::span(whole).first(size));
    ASSERT_TRUE(log.ok()) << size;
    EXPECT_LT(log->events.size(), 5u);
    EXPECT_GE(log->events.size(), before);
    EXPECT_FALSE(log->complete);
    before = log->events.size();
  }
  EXPECT_EQ(before, 4u);
}

TEST(PersistentEventsTest, LengthsThatLieEndTheDecoding) {
  struct Row {
    size_t offset;
    uint64_t value;
    size_t size;
  };
  for (const Row& row : {Row{542, 3, 1}, Row{560, 7, 2}, Row{562, 0xffff, 2}, Row{542, 255, 1}}) {
    metal::testing::Page page = LoadPage("persistent_events");
    Put(page, row.offset, row.value, row.size);
    const auto log = DecodePersistentEvents(page);
    ASSERT_TRUE(log.ok());
    EXPECT_LT(log->events.size(), 5u) << row.offset;
    EXPECT_FALSE(log->complete);
  }
}

TEST(PersistentEventsTest, AnImpossibleHeaderLengthIsNotBelieved) {
  metal::testing::Page page = LoadPage("persistent_events");
  Put(page, 18, 0, 2);
  const auto log = DecodePersistentEvents(page);
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->events.size(), 5u);
}

TEST(PersistentEventsTest, OtherPagesAreRejected) {
  EXPECT_THAT(DecodePersistentEvents(std::vector<std::byte>(511)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("less than the header")));
  EXPECT_THAT(DecodePersistentEvents(std::vector<std::byte>(512)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("log 0x00")));
}

}  // namespace
}  // namespace metal::disk
