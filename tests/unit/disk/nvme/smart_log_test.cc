#include "agent/disk/nvme/smart_log.h"

#include <cstring>

#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::disk {
namespace {

using metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A page as a drive writes it, little-endian, every field with a value of its own.
std::vector<std::byte> GoldenPage() {
  std::vector<std::byte> page(kSmartLogSize);
  const auto put = [&](size_t offset, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; ++i) page[offset + i] = static_cast<std::byte>(value >> (8 * i));
  };
  put(0, 0x0a, 1);  // temperature, media read-only
  put(1, 311, 2);   // 38 °C
  put(3, 97, 1);
  put(4, 10, 1);
  put(5, 104, 1);  // past its rated life
  put(6, 0x05, 1);
  put(32, 1'000'001, 8);  // 512,000,512,000 bytes
  put(48, 2'000, 8);
  put(64, 0x1122334455, 8);
  put(80, 77, 8);
  put(96, 1'440, 8);
  put(112, 23, 8);
  put(128, 8'761, 8);
  put(144, 5, 8);
  put(160, 3, 8);
  put(176, 4'294'967'296, 8);
  put(192, 60, 4);
  put(196, 2, 4);
  put(200, 300, 2);  // sensor 1; the others are absent
  put(214, 280, 2);  // sensor 8
  put(216, 9, 4);
  put(220, 1, 4);
  put(224, 3'600, 4);
  put(228, 30, 4);
  return page;
}

TEST(SmartLogTest, EveryFieldIsReadFromItsPlace) {
  const auto log = DecodeSmartLog(GoldenPage());
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
