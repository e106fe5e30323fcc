#include "agent/disk/sources/uevent.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::disk {
namespace {

using ::testing::HasSubstr;

constexpr char kDisk[] = "/devices/pci0000:00/0000:00:03.0/nvme/nvme0/nvme0n1";
constexpr char kController[] = "/devices/pci0000:00/0000:00:03.0/nvme/nvme0";

std::string Message(const std::string& action, const std::string& path,
                    const std::vector<std::string>& values) {
  std::string text = action + "@" + path;
  text += '\0';
  for (const std::string& value : values) {
    text += value;
    text += '\0';
  }
  return text;
}

std::optional<UeventVerdict> Judge(const std::string& action, const std::string& path,
                                   const std::vector<std::string>& values) {
  DiskNames names;
  for (const char* name : {"nvme0n1", "nvme0n1p1", "nvme0", "0000:00:03.0"}) {
    names.Add(name, "nvme0n1");
  }
  const auto event = ParseUevent(Message(action, path, values));
  EXPECT_TRUE(event.has_value());
  return JudgeUevent(*event, names, absl::FromUnixSeconds(1));
}

TEST(UeventTest, KernelMessagesAreDecoded) {
  const auto event = ParseUevent(
      Message("remove", kDisk, {"ACTION=remove", "SUBSYSTEM=block", "DEVNAME=nvme0n1", "=x", "y"}));
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->action, "remove");
  EXPECT_EQ(event->name(), "nvme0n1");
  EXPECT_EQ(event->subsystem, "block");
  EXPECT_EQ(event->values.size(), 3u);
}

TEST(UeventTest, OtherMessagesAreRejected) {
  EXPECT_FALSE(ParseUevent("libudev").has_value());
  EXPECT_FALSE(ParseUevent(std::string("libudev\0\xfe\xed", 10)).has_value());
  EXPECT_FALSE(ParseUevent(std::string("@path\0", 6)).has_value());
  EXPECT_FALSE(ParseUevent("remove@/devices/x").has_value());
}

TEST(UeventTest, ARemovedDiskIsGone) {
  for (const char* action : {"remove", "offline"}) {
    const auto verdict = Judge(action, kDisk, {"SUBSYSTEM=block", "DEVTYPE=disk"});
    ASSERT_TRUE(verdict.has_value());
    ASSERT_TRUE(verdict->evidence.has_value());
    EXPECT_EQ(verdict->evidence->fault_class, FaultClass::kGone);
    EXPECT_EQ(verdict->evidence->witness, Witness::kUevent);
    EXPECT_EQ(verdict->evidence->device, "nvme0n1");
    EXPECT_FALSE(verdict->evidence->clears);
  }
  const auto controller = Judge("remove", kController, {"SUBSYSTEM=nvme"});
  ASSERT_TRUE(controller.has_value());
  EXPECT_EQ(controller->evidence->fault_class, FaultClass::kGone);
}

TEST(UeventTest, ADiskThatComesClearsNothingByItself) {
  const auto verdict = Judge("add", kDisk, {"SUBSYSTEM=block", "DEVTYPE=disk"});
  ASSERT_TRUE(verdict.has_value());
  EXPECT_TRUE(verdict->came);
  EXPECT_EQ(verdict->disk, "nvme0n1");
  EXPECT_FALSE(verdict->evidence.has_value());
}

TEST(UeventTest, ReadOnlyComesAndGoes) {
  const auto set = Judge("change", kDisk, {"SUBSYSTEM=block", "DISK_RO=1"});
  ASSERT_TRUE(set.has_value());
  EXPECT_EQ(set->evidence->fault_class, FaultClass::kReadOnly);
  EXPECT_FALSE(set->evidence->clears);
  EXPECT_EQ(set->evidence->delta, 1) << "of a moment: whether it lasts is in sysfs";
  EXPECT_TRUE(Judge("change", kDisk, {"SUBSYSTEM=block", "DISK_RO=0"})->evidence->clears);
}

TEST(UeventTest, WhatTheDriveReportsOfItselfIsTold) {
  const std::pair<const char*, FaultClass> cases[] = {
      {"NVME_AEN=0x020001", FaultClass::kUnreliable},
      {"NVME_AEN=0x020101", FaultClass::kOverheating},
      {"NVME_AEN=0x020201", FaultClass::kSpareLow},
      {"NVME_AEN=0x010300", FaultClass::kControllerReset}};
  for (const auto& [value, fault_class] : cases) {
    const auto verdict = Judge("change", kController, {"SUBSYSTEM=nvme", value});
    ASSERT_TRUE(verdict.has_value()) << value;
    EXPECT_EQ(verdict->evidence->fault_class, fault_class);
    EXPECT_THAT(verdict->evidence->text, HasSubstr("nvme0n1"));
  }
  EXPECT_FALSE(Judge("change", kController, {"SUBSYSTEM=nvme", "NVME_AEN=0x000002"}).has_value());
  EXPECT_FALSE(Judge("change", kController, {"SUBSYSTEM=nvme", "NVME_AEN=x"}).has_value());
  EXPECT_FALSE(Judge("change", kController, {"SUBSYSTEM=nvme"}).has_value());
}

TEST(UeventTest, PartitionsOtherDisksAndOtherEventsSayNothing) {
  EXPECT_FALSE(Judge("remove", std::string(kDisk) + "/nvme0n1p1", {"SUBSYSTEM=block"}).has_value());
  EXPECT_FALSE(Judge("remove", "/devices/virtual/block/loop0", {"SUBSYSTEM=block"}).has_value());
  EXPECT_FALSE(Judge("change", kDisk, {"SUBSYSTEM=block", "RESIZE=1"}).has_value());
  EXPECT_FALSE(Judge("bind", "/devices/pci0000:00/0000:00:03.0", {"SUBSYSTEM=pci"}).has_value());
}

TEST(UeventTest, ASocketCanBeHadWithoutPrivilege) {
  ASSERT_OK_AND_ASSIGN(UeventSocket socket, UeventSocket::Open());
  EXPECT_GE(socket.fd(), 0);
  bool lost = true;
  socket.Drain(lost);  // does not block
  EXPECT_FALSE(lost);
}

}  // namespace
}  // namespace metal::disk
