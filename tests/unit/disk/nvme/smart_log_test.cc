#include "agent/disk/nvme/smart_log.h"

#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/nvme/page_fixture.h"

namespace metal::disk {
namespace {

using metal::testing::LoadPage;
using metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SmartLogTest, EveryFieldIsReadFromItsPlace) {
  const auto log = DecodeSmartLog(LoadPage("smart"));
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_EQ(log->critical_warning, kTemperatureOutOfRange | kMediaReadOnly);
  EXPECT_EQ(log->temperature_celsius, 38);
  EXPECT_EQ(log->available_spare_percent, 97);
  EXPECT_EQ(log->available_spare_threshold_percent, 10);
  EXPECT_EQ(log->percentage_used, 104);
  EXPECT_EQ(log->endurance_group_warning, 5);
  EXPECT_EQ(log->host_read.value, 512'000'512'000u);
  EXPECT_EQ(log->host_written.value, 1'024'000'000u);
  EXPECT_EQ(log->host_read_commands, 0x1122334455u);
  EXPECT_EQ(log->host_write_commands, 77u);
  EXPECT_EQ(log->controller_busy, absl::Hours(24));
  EXPECT_EQ(log->power_cycles, 23u);
  EXPECT_EQ(log->power_on_hours, 8761u);
  EXPECT_EQ(log->unsafe_shutdowns, 5u);
  EXPECT_EQ(log->media_errors, 3u);
  EXPECT_EQ(log->error_log_entries, 4'294'967'296u);
  EXPECT_EQ(log->warning_temperature_time, absl::Hours(1));
  EXPECT_EQ(log->critical_temperature_time, absl::Minutes(2));
  EXPECT_EQ(log->sensors_celsius[0], 27);
  EXPECT_EQ(log->sensors_celsius[1], std::nullopt);
  EXPECT_EQ(log->sensors_celsius[7], 7);
  EXPECT_EQ(log->thermal_transitions[0], 9u);
  EXPECT_EQ(log->thermal_transitions[1], 1u);
  EXPECT_EQ(log->thermal_throttled[0], absl::Hours(1));
  EXPECT_EQ(log->thermal_throttled[1], absl::Seconds(30));
}

TEST(SmartLogTest, ADriveWithoutThermometerHasNoTemperature) {
  std::vector<std::byte> page(kSmartLogSize);
  const auto log = DecodeSmartLog(page);
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->temperature_celsius, std::nullopt);
}

TEST(SmartLogTest, CountersAbove64BitsAreCut) {
  std::vector<std::byte> page(kSmartLogSize, std::byte{0xff});
  const auto log = DecodeSmartLog(page);
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->host_read.value, UINT64_MAX);
  EXPECT_EQ(log->media_errors, UINT64_MAX);
  EXPECT_EQ(log->controller_busy, absl::InfiniteDuration());
}

TEST(SmartLogTest, AnyOtherSizeIsRejected) {
  for (const size_t size : {0u, 1u, 511u, 513u, 4096u}) {
    const std::vector<std::byte> page(size);
    EXPECT_THAT(DecodeSmartLog(page),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("instead of 512")));
  }
}

TEST(SmartLogTest, WarningsHaveNamesInBitOrder) {
  EXPECT_THAT(CriticalWarningNames(0x00), ElementsAre());
  EXPECT_THAT(CriticalWarningNames(0x8c),
              ElementsAre("reliability_degraded", "media_read_only", "bit7"));
}

}  // namespace
}  // namespace metal::disk
