#include "agent/base/kernel_record.h"

#include <gtest/gtest.h>

namespace metal::base {
namespace {

TEST(KernelRecordTest, HeaderTextAndDictionaryAreTold) {
  const auto record = ParseKernelRecord(
      "4,339,5140900,-,caller=T12;nvme nvme0: Abort status: 0x0\n SUBSYSTEM=nvme\n "
      "DEVICE=c241:0\n");
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->facility, 0);
  EXPECT_EQ(record->level, 4);
  EXPECT_EQ(record->sequence, 339u);
  EXPECT_EQ(record->since_boot, absl::Microseconds(5140900));
  EXPECT_FALSE(record->continues);
  EXPECT_EQ(record->text, "nvme nvme0: Abort status: 0x0");
  EXPECT_EQ(record->dictionary.at("SUBSYSTEM"), "nvme");
  EXPECT_EQ(record->dictionary.at("DEVICE"), "c241:0");
}

TEST(KernelRecordTest, EscapesContinuationsAndFacilitiesAreDecoded) {
  EXPECT_EQ(ParseKernelRecord("6,1,2,-;a\\x0ab\\x5cx41\\x\\xzz\n")->text, "a\nb\\x41\\x\\xzz");
  EXPECT_TRUE(ParseKernelRecord("6,1,2,c;more\n")->continues);
  EXPECT_EQ(ParseKernelRecord("12,1,2,-;from a program\n")->facility, 1);
  EXPECT_EQ(ParseKernelRecord("6,1,2,-;")->text, "");
}

TEST(KernelRecordTest, WhatIsNoRecordIsRejected) {
  for (const char* text : {"", ";", "6;x", "6,1;x", "a,1,2,-;x", "6,1,2,-", "-6,1,2,-;x",
                           "6,1,99999999999999999999,-;x"}) {
    EXPECT_FALSE(ParseKernelRecord(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace metal::base
