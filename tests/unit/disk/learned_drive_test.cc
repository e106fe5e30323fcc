#include "agent/disk/slow/learned_drive.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::disk {
namespace {

using metal::testing::StatusIs;
using ::testing::HasSubstr;

LearnedDrives SomeDrives() {
  LearnedDrives drives;
  LearnedDrive& drive = drives["serial\twith a tab"];
  drive.time = absl::FromUnixSeconds(1800000000);
  drive.channels[0] = {.bins = {{0, {120, 11.5, 0.25}}, {112, {1, -0.1, 0}}},
                       .history = {1800, 1.0 / 3, 1e-9},
                       .difference = {}};
  drives["other"].time = absl::UnixEpoch();
  return drives;
}

TEST(LearnedDriveTest, WhatIsEncodedIsDecoded) {
  ASSERT_OK_AND_ASSIGN(const LearnedDrives read, DecodeLearned(EncodeLearned(SomeDrives())));
  EXPECT_EQ(read, SomeDrives());
  ASSERT_OK_AND_ASSIGN(const LearnedDrives none, DecodeLearned(EncodeLearned({})));
  EXPECT_EQ(none, LearnedDrives());
}

TEST(LearnedDriveTest, ALineThatMakesNoSenseIsNamed) {
  const std::string good = "learned\t1\ndrive\tS\t1\n";
  for (const char* bad :
       {"bin\t0\t113\t1\t1\t1\n", "bin\t2\t1\t1\t1\t1\n", "bin\t0\t1\t1\t1\n", "bin\n",
        "history\t0\t1\tnan\t1\n", "history\t0\t1\t1\t-1\n", "history\t0\t-1\t1\t1\n",
        "history\t0\t1\t1\tinf\n", "history\t0\t1\t1e9\t1\n", "drive\t\t1\n", "drive\tS\tnow\n",
        "stranger\t0\n", "\n"}) {
    EXPECT_THAT(DecodeLearned(good + bad + "end\n"),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("line 3 makes no sense")))
        << bad;
  }
  EXPECT_THAT(DecodeLearned("learned\t2\nend\n"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("line 1")));
  EXPECT_FALSE(DecodeLearned("learned\t1\nhistory\t0\t1\t1\t1\nend\n").ok()) << "of no drive";
}

TEST(LearnedDriveTest, ATextThatWasCutAnywhereIsKnown) {
  const std::string whole = EncodeLearned(SomeDrives());
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(DecodeLearned(whole.substr(0, length)).ok()) << length;
  }
  EXPECT_FALSE(DecodeLearned(whole + "end\n").ok());
}

}  // namespace
}  // namespace metal::disk
