#include "agent/disk/nvme/identify.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::disk {
namespace {

using metal::testing::StatusIs;

void PutText(std::vector<std::byte>& data, size_t offset, size_t size, std::string_view text) {
  for (size_t i = 0; i < size; ++i) {
    data[offset + i] = static_cast<std::byte>(i < text.size() ? text[i] : ' ');
  }
}

TEST(IdentifyControllerTest, EveryFieldIsReadFromItsPlace) {
  std::vector<std::byte> data(kIdentifySize);
  const auto put = [&](size_t offset, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; ++i) data[offset + i] = static_cast<std::byte>(value >> (8 * i));
  };
  put(0, 0x1b36, 2);
  PutText(data, 4, 20, "METAL0001");
  PutText(data, 24, 40, "QEMU NVMe Ctrl");
  PutText(data, 64, 8, "7.2.22");
  put(77, 7, 1);
  put(80, 0x00010400, 4);
  put(256, 0x0010, 2);
  put(261, 0x1e, 1);
  put(262, 63, 1);
  put(266, 343, 2);
  put(268, 373, 2);
  put(280, 1'920'383'410'176, 8);
  put(316, 90, 2);
  put(525, 0x07, 1);
  put(528, 31, 2);
  const auto id = DecodeIdentifyController(data);
  ASSERT_TRUE(id.ok()) << id.status();
  EXPECT_EQ(id->pci_vendor, 0x1b36);
  EXPECT_EQ(id->serial, "METAL0001");
  EXPECT_EQ(id->model, "QEMU NVMe Ctrl");
  EXPECT_EQ(id->firmware, "7.2.22");
  EXPECT_EQ(id->max_transfer_exponent, 7);
  EXPECT_EQ(id->version, 0x00010400u);
  EXPECT_TRUE(id->can_self_test);
  EXPECT_TRUE(id->has_persistent_event_log);
  EXPECT_EQ(id->error_log_entries, 64);
  EXPECT_EQ(id->warning_celsius, 70);
  EXPECT_EQ(id->critical_celsius, 100);
  EXPECT_EQ(id->total_capacity.value, 1'920'383'410'176u);
  EXPECT_EQ(id->extended_self_test, absl::Minutes(90));
  EXPECT_TRUE(id->volatile_write_cache);
  EXPECT_EQ(id->atomic_write_power_fail_blocks, 32u);
}

TEST(IdentifyControllerTest, UnprintableTextIsMadeHarmless) {
  std::vector<std::byte> data(kIdentifySize);
  PutText(data, 4, 20, "AB\x01\x1b[31m");
  const auto id = DecodeIdentifyController(data);
  ASSERT_TRUE(id.ok());
  EXPECT_EQ(id->serial, "AB??[31m");
  EXPECT_EQ(id->model, "");
  EXPECT_EQ(id->warning_celsius, std::nullopt);
}

TEST(IdentifyControllerTest, AnyOtherSizeIsRejected) {
  EXPECT_THAT(DecodeIdentifyController(std::vector<std::byte>(4095)),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace metal::disk
