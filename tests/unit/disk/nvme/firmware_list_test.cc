#include "agent/disk/nvme/firmware_list.h"

#include "gtest/gtest.h"

namespace metal::disk {
namespace {

TEST(FirmwareListTest, OnlyTheFirmwareThatFailsIsFound) {
  struct Case {
    const char *model, *firmware;
    bool bad;
  };
  for (const Case& each :
       {Case{"Samsung SSD 980 PRO 2TB", "3B2QGXA7", true},
        Case{"Samsung SSD 980 PRO 2TB", "5B2QGXA7", false},
        Case{"Samsung SSD 990 PRO 1TB", "0B2QJXD7", true}, Case{"MO1600JVYPR", "HPD6", true},
        Case{"MO1600JVYPR", "HPD7", false}, Case{"MO1600JVYPR", "HPD", false},
        Case{"M4-CT256M4SSD2", "0009", true}, Case{"M4-CT256M4SSD2", "070H", false},
        Case{"", "", false}, Case{"QEMU NVMe Ctrl", "7.2.22", false}}) {
    EXPECT_EQ(FindBadFirmware(each.model, each.firmware) != nullptr, each.bad)
        << each.model << " " << each.firmware;
  }
}

TEST(FirmwareListTest, AnAgeIsToldThirtyDaysBefore) {
  const BadFirmware* const row = FindBadFirmware("MO1600JVYPR", "HPD6");
  ASSERT_NE(row, nullptr);
  EXPECT_FALSE(IsBadFirmwareDue(*row, 39'279));
  EXPECT_TRUE(IsBadFirmwareDue(*row, 39'280));
  EXPECT_TRUE(IsBadFirmwareDue(*row, 50'000));
  EXPECT_TRUE(IsBadFirmwareDue(*row, std::nullopt));
  EXPECT_TRUE(IsBadFirmwareDue(*FindBadFirmware("Samsung SSD 980 PRO", "3B2QGXA7"), 0));
}

}  // namespace
}  // namespace metal::disk
