#include "agent/disk/sources/sysfs_watch.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::DoubleEq;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::SizeIs;

constexpr absl::Time kNow = absl::UnixEpoch();

DiskSysfs Healthy() {
  DiskSysfs look;
  look.present = true;
  look.size_bytes = 1 << 30;
  look.serial = "S1";
  look.state = "live";
  look.link = PcieLink{.gigatransfers = 16, .width = 4};
  look.link_limit = look.link;
  look.correctable = look.nonfatal = look.fatal = 0;
  return look;
}

struct Case {
  const char* name;
  std::function<void(DiskSysfs&)> change;
  FaultClass fault_class;
  const char* text;
};

TEST(SysfsJudgeTest, WhatLastsIsToldAtEveryLookAndItsEndOnce) {
  const Case cases[] = {
      {"removed", [](DiskSysfs& look) { look = DiskSysfs{}; }, FaultClass::kGone, "not in sysfs"},
      {"size 0", [](DiskSysfs& look) { look.size_bytes = 0; }, FaultClass::kGone, "size 0"},
      {"dead", [](DiskSysfs& look) { look.state = "dead"; }, FaultClass::kGone, "is dead"},
      {"deleting", [](DiskSysfs& look) { look.state = "deleting (no IO)"; }, FaultClass::kGone,
       "is deleting"},
      {"read-only", [](DiskSysfs& look) { look.read_only = true; }, FaultClass::kReadOnly,
       "read-only"},
      {"other drive", [](DiskSysfs& look) { look.serial = "S2"; }, FaultClass::kWrongDevice,
       "serial number S2, it had S1"},
      {"narrow", [](DiskSysfs& look) { look.link->width = 1; }, FaultClass::kLinkDegraded,
       "1 of 4 lanes"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    SysfsJudge judge("nvme0n1", "S1");
    EXPECT_THAT(judge.Observe(Healthy(), false, kNow), IsEmpty());
    DiskSysfs sick = Healthy();
    c.change(sick);
    for (int look = 0; look < 2; ++look) {
      const auto evidence = judge.Observe(sick, false, kNow);
      ASSERT_THAT(evidence, SizeIs(1));
      EXPECT_EQ(evidence[0].fault_class, c.fault_class);
      EXPECT_EQ(evidence[0].witness, Witness::kSysfs);
      EXPECT_EQ(evidence[0].device, "nvme0n1");
      EXPECT_THAT(evidence[0].text, HasSubstr(c.text));
      EXPECT_FALSE(evidence[0].clears);
    }
    const auto ended = judge.Observe(Healthy(), false, kNow);
    ASSERT_THAT(ended, SizeIs(1));
    EXPECT_EQ(ended[0].fault_class, c.fault_class);
    EXPECT_TRUE(ended[0].clears);
    EXPECT_THAT(judge.Observe(Healthy(), false, kNow), IsEmpty());
  }
}

TEST(SysfsJudgeTest, AnotherDriveInItsPlaceIsNoReturn) {
  SysfsJudge judge("nvme0n1", "S1");
  judge.Observe(DiskSysfs{}, false, kNow);
  DiskSysfs other = Healthy();
  other.serial = "S2";
  const auto evidence = judge.Observe(other, false, kNow);
  ASSERT_THAT(evidence, SizeIs(1));
  EXPECT_EQ(evidence[0].fault_class, FaultClass::kWrongDevice);
  EXPECT_THAT(judge.Observe(Healthy(), false, kNow), SizeIs(2));  // both end
}

TEST(SysfsJudgeTest, AControllerThatResetsIsToldOnceForEachReset) {
  SysfsJudge judge("nvme0n1", "");
  DiskSysfs look = Healthy();
  for (int reset = 0; reset < 2; ++reset) {
    look.state = "resetting";
    const auto evidence = judge.Observe(look, false, kNow);
    ASSERT_THAT(evidence, SizeIs(1));
    EXPECT_EQ(evidence[0].fault_class, FaultClass::kControllerReset);
    EXPECT_THAT(evidence[0].text, HasSubstr("resetting"));
    look.state = "connecting";
    EXPECT_THAT(judge.Observe(look, false, kNow), IsEmpty());  // the same reset
    look.state = "live";
    const auto ended = judge.Observe(look, false, kNow);
    ASSERT_THAT(ended, SizeIs(1));
    EXPECT_TRUE(ended[0].clears);
  }
}

TEST(SysfsJudgeTest, ASlowLinkCountsUnderLoadAlone) {
  SysfsJudge judge("nvme0n1", "");
  DiskSysfs look = Healthy();
  look.link->gigatransfers = 2.5;
  EXPECT_THAT(judge.Observe(look, false, kNow), IsEmpty());
  const auto evidence = judge.Observe(look, true, kNow);
  ASSERT_THAT(evidence, SizeIs(1));
  EXPECT_EQ(evidence[0].fault_class, FaultClass::kLinkDegraded);
  EXPECT_THAT(evidence[0].text, HasSubstr("2.5 of 16 GT/s"));
  EXPECT_THAT(judge.Observe(look, false, kNow), SizeIs(1));
  EXPECT_TRUE(judge.Observe(Healthy(), false, kNow).at(0).clears);
}

TEST(SysfsJudgeTest, CountersTellWhatTheyGained) {
  SysfsJudge judge("nvme0n1", "");
  DiskSysfs look = Healthy();
  look.correctable = 100;  // of before the agent's time
  look.resets = 1;
  EXPECT_THAT(judge.Observe(look, false, kNow), IsEmpty());
  look.correctable = 103;
  look.fatal = 1;
  look.resets = 2;
  const auto evidence = judge.Observe(look, false, kNow);
  ASSERT_THAT(evidence, SizeIs(3));
  EXPECT_THAT(evidence[0].delta, Optional(3));
  EXPECT_EQ(evidence[0].fault_class, FaultClass::kLinkDegraded);
  EXPECT_THAT(evidence[1].text, HasSubstr("1 fatal PCIe errors"));
  EXPECT_EQ(evidence[2].fault_class, FaultClass::kControllerReset);
  look.correctable = 0;  // set to zero by somebody
  EXPECT_THAT(judge.Observe(look, false, kNow), IsEmpty());
  look.correctable = std::nullopt;
  EXPECT_THAT(judge.Observe(look, false, kNow), IsEmpty());
  look.correctable = 5;
  EXPECT_THAT(judge.Observe(look, false, kNow), IsEmpty());
}

TEST(SysfsWatchTest, AttributesAreDecoded) {
  EXPECT_THAT(ParseLinkSpeed("8.0 GT/s PCIe"), Optional(DoubleEq(8)));
  EXPECT_THAT(ParseLinkSpeed("2.5 GT/s"), Optional(DoubleEq(2.5)));
  for (const char* text : {"Unknown", "", "8.0", "nan GT/s", "-1 GT/s", "1e9 GT/s"}) {
    EXPECT_EQ(ParseLinkSpeed(text), std::nullopt) << text;
  }
  EXPECT_THAT(ParseAerTotal("RxErr 1\nBadTLP 2\nTOTAL_ERR_COR 3\n"), Optional(3u));
  for (const char* text : {"", "RxErr 1", "TOTAL_ERR_COR", "TOTAL_ERR_COR x"}) {
    EXPECT_EQ(ParseAerTotal(text), std::nullopt) << text;
  }
}

TEST(SysfsWatchTest, ADrivesDirectoriesAreRead) {
  metal::testing::TempDir dir;
  const std::string function = "sys/devices/pci0000:00/0000:00:1c.0/0000:3b:00.0";
  const std::string controller = function + "/nvme/nvme0";
  dir.Write(controller + "/nvme0n1/size", "2048\n");
  dir.Write(controller + "/nvme0n1/ro", "1\n");
  dir.Write(controller + "/state", "live\n");
  dir.Write(controller + "/serial", "S64GNE0R512345      \n");
  dir.Write(controller + "/diag/reset_count", "2\n");
  dir.Write(function + "/current_link_speed", "8.0 GT/s PCIe\n");
  dir.Write(function + "/current_link_width", "2\n");
  dir.Write(function + "/max_link_speed", "32.0 GT/s PCIe\n");
  dir.Write(function + "/max_link_width", "4\n");
  dir.Write(function + "/aer_dev_fatal", "Undefined 0\nTOTAL_ERR_FATAL 1\n");
  dir.Write("sys/devices/pci0000:00/0000:00:1c.0/max_link_speed", "16.0 GT/s PCIe\n");
  dir.Write("sys/devices/pci0000:00/0000:00:1c.0/max_link_width", "16\n");
  fs::create_directories(dir.File("sys/class/block"));
  fs::create_directories(dir.File("sys/class/nvme"));
  fs::create_symlink(dir.File(controller + "/nvme0n1"), dir.File("sys/class/block/nvme0n1"));
  fs::create_symlink(dir.File(controller), dir.File("sys/class/nvme/nvme0"));
  fs::create_symlink(dir.File(function), dir.File(controller + "/device"));
  const SysRoots roots{.proc = dir.File("proc"), .sys = dir.File("sys"), .dev = dir.File("dev")};

  const DiskSysfs look = ReadDiskSysfs(roots, "nvme0n1", "nvme0");
  EXPECT_TRUE(look.present);
  EXPECT_EQ(look.size_bytes, 2048u * 512);
  EXPECT_TRUE(look.read_only);
  EXPECT_EQ(look.serial, "S64GNE0R512345");
  EXPECT_THAT(look.state, Optional(std::string("live")));
  EXPECT_THAT(look.link, Optional(PcieLink{.gigatransfers = 8, .width = 2}));
  EXPECT_THAT(look.link_limit, Optional(PcieLink{.gigatransfers = 16, .width = 4}));
  EXPECT_THAT(look.fatal, Optional(1u));
  EXPECT_EQ(look.correctable, std::nullopt);
  EXPECT_THAT(look.resets, Optional(2u));

  EXPECT_FALSE(ReadDiskSysfs(roots, "nvme1n1", "nvme1").present);
}

}  // namespace
}  // namespace metal::disk
