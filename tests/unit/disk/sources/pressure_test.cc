#include "agent/disk/sources/pressure.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

using ::testing::DoubleEq;

TEST(PressureTest, SharesAreDecoded) {
  const auto pressure = ParsePressure(
      "some avg10=12.50 avg60=1.00 avg300=0.10 total=123\n"
      "full avg10=2.00 avg60=0.50 avg300=0.00 total=45\n");
  ASSERT_TRUE(pressure.has_value());
  EXPECT_THAT(pressure->some_10s, DoubleEq(0.125));
  EXPECT_THAT(pressure->some_60s, DoubleEq(0.01));
  EXPECT_THAT(pressure->full_10s, DoubleEq(0.02));
  EXPECT_THAT(pressure->full_60s, DoubleEq(0.005));
  for (const char* text :
       {"", "some", "full avg10=1 avg60=1", "some avg10=x avg60=1", "some avg10=nan avg60=1"}) {
    EXPECT_FALSE(ParsePressure(text).has_value()) << text;
  }
}

TEST(PressureTest, WhatTheKernelHasIsReadAndTheRestStaysUnset) {
  metal::testing::TempDir dir;
  const SysRoots roots{.proc = dir.File("proc"), .sys = dir.File("sys"), .dev = dir.File("dev")};
  EXPECT_FALSE(ReadPressure(roots).io.has_value());
  dir.Write("proc/pressure/io", "some avg10=50.00 avg60=0.00 avg300=0.00 total=1\n");
  dir.Write("proc/pressure/cpu", "some avg10=1.00 avg60=2.00 avg300=0.00 total=1\n");
  const observe::PressureSection read = ReadPressure(roots);
  EXPECT_THAT(read.io->some_10s, DoubleEq(0.5));
  EXPECT_THAT(read.cpu->some_60s, DoubleEq(0.02));
  EXPECT_FALSE(read.memory.has_value());
}

}  // namespace
}  // namespace metal::disk
