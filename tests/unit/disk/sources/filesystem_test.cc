#include "agent/disk/sources/filesystem.h"

#include <linux/fanotify.h>

#include <cerrno>
#include <cstring>

#include "agent/disk/sources/privileged_filesystem.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

using metal::testing::IsOk;
using metal::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr absl::Time kNow = absl::UnixEpoch();
const FilesystemId kXfs = {
    .major = 259, .minor = 1, .name = "nvme0n1p1", .type = "xfs", .disk = "nvme0n1"};

TEST(FilesystemTest, MountOptionsSayWhatTheFilesystemGaveUp) {
  const std::string table =
      "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n"
      "30 22 259:1 / /data ro,relatime - xfs /dev/nvme0n1p1 rw,inode64\n"
      "31 22 259:2 / /a rw - ext4 /dev/nvme0n1p2 rw,abort,emergency_ro\n"
      "32 22 259:3 / /b rw master:3 propagate_from:1 - ext4 /dev/nvme0n1p3 ro,shutdown\n"
      "33 22 259:4 / /c rw - ext4\n"
      "34 22 259:5\n";
  EXPECT_FALSE(FindMountState(table, 8, 1)->read_only);
  EXPECT_TRUE(FindMountState(table, 259, 1)->read_only);
  EXPECT_FALSE(FindMountState(table, 259, 1)->broken);
  EXPECT_TRUE(FindMountState(table, 259, 2)->broken);
  EXPECT_FALSE(FindMountState(table, 259, 2)->read_only);
  EXPECT_EQ(FindMountState(table, 259, 3)->mark, "shutdown");
  for (const unsigned minor : {4u, 5u, 6u}) {
    EXPECT_FALSE(FindMountState(table, 259, minor).has_value()) << minor;
  }
}

TEST(FilesystemTest, OnlyFilesystemsWithADeviceAreNamed) {
  StorageStack stack;
  stack.mount = {.major = 253,
                 .minor = 0,
                 .root = "/",
                 .mount_point = "/data",
                 .filesystem = "xfs",
                 .source = "/dev/dm-0"};
  stack.layers = {"dm-0", "nvme0n1p1", "nvme0n1"};
  stack.disks.resize(1);
  stack.disks[0].name = "nvme0n1";
  EXPECT_EQ(FilesystemOf(stack)->name, "dm-0");
  EXPECT_EQ(FilesystemOf(stack)->disk, "nvme0n1");
  stack.mount.major = 0;
  EXPECT_FALSE(FilesystemOf(stack).has_value());
}

TEST(FilesystemJudgeTest, WhatStandsIsTakenBackWithTheMount) {
  FilesystemJudge judge(kXfs);
  judge.Observe(MountState{}, {}, kNow);
  EXPECT_THAT(judge.Withdraw(kNow), IsEmpty());
  const MountState broken{.read_only = true, .broken = true, .mark = "shutdown"};
  EXPECT_THAT(judge.Observe(broken, {{"EIO", {.max_retries = -1, .timeout_seconds = -1}}}, kNow),
              SizeIs(3));
  const auto withdrawn = judge.Withdraw(kNow);
  ASSERT_THAT(withdrawn, SizeIs(3));
  for (const Evidence& each : withdrawn) EXPECT_TRUE(each.clears);
  EXPECT_EQ(withdrawn[0].fault_class, FaultClass::kFilesystemShutdown);
  EXPECT_EQ(withdrawn[2].fault_class, FaultClass::kMetadataRetry);
  EXPECT_THAT(judge.Withdraw(kNow), IsEmpty());
}

TEST(FilesystemJudgeTest, AFilesystemThatGaveUpIsToldWhileItLasts) {
  FilesystemJudge judge(kXfs);
  EXPECT_THAT(judge.Observe(MountState{}, {}, kNow), IsEmpty());
  const MountState broken{.read_only = false, .broken = true, .mark = "emergency_ro"};
  for (int look = 0; look < 2; ++look) {
    const auto evidence = judge.Observe(broken, {}, kNow);
    ASSERT_THAT(evidence, SizeIs(1));
    EXPECT_EQ(evidence[0].fault_class, FaultClass::kFilesystemShutdown);
    EXPECT_EQ(evidence[0].witness, Witness::kFilesystem);
    EXPECT_EQ(evidence[0].device, "nvme0n1");
    EXPECT_THAT(evidence[0].text, HasSubstr("emergency_ro"));
  }
  EXPECT_THAT(judge.Observe(std::nullopt, {}, kNow), IsEmpty());  // not mounted: nothing is known
  const auto ended = judge.Observe(MountState{}, {}, kNow);
  ASSERT_THAT(ended, SizeIs(1));
  EXPECT_TRUE(ended[0].clears);
}

TEST(FilesystemJudgeTest, ReadOnlyCountsWhereItWasWritableBefore) {
  const MountState read_only{.read_only = true, .broken = false, .mark = ""};
  FilesystemJudge always(kXfs);
  EXPECT_THAT(always.Observe(read_only, {}, kNow), IsEmpty());
  FilesystemJudge became(kXfs);
  became.Observe(MountState{}, {}, kNow);
  EXPECT_THAT(became.Observe(read_only, {}, kNow), SizeIs(1));
}

TEST(FilesystemJudgeTest, EndlessRetriesAfterErrorsOfTheDeviceAreTold) {
  FilesystemJudge judge(kXfs);
  std::map<std::string, XfsRetry> retries = {
      {"EIO", {-1, -1}}, {"ENOSPC", {-1, -1}}, {"ENODEV", {0, 0}}, {"default", {-1, -1}}};
  const auto evidence = judge.Observe(MountState{}, retries, kNow);
  ASSERT_THAT(evidence, SizeIs(1));
  EXPECT_EQ(evidence[0].fault_class, FaultClass::kMetadataRetry);
  EXPECT_THAT(evidence[0].text, HasSubstr("(EIO, default)"));
  retries["EIO"] = {-1, 5};  // for ever, but five seconds
  retries["default"] = {3, 5};
  EXPECT_TRUE(judge.Observe(MountState{}, retries, kNow).at(0).clears);
}

TEST(XfsRetriesTest, SettingsAreWrittenForErrorsOfTheDevice) {
  metal::testing::TempDir dir;
  const SysRoots roots{.proc = dir.File("proc"), .sys = dir.File("sys"), .dev = dir.File("dev")};
  for (const char* kind : {"EIO", "ENOSPC", "ENODEV", "default"}) {
    const std::string directory = std::string("sys/fs/xfs/nvme0n1p1/error/metadata/") + kind;
    dir.Write(directory + "/max_retries", "-1\n");
    dir.Write(directory + "/retry_timeout_seconds", "-1\n");
  }
  EXPECT_EQ(ReadXfsRetries(roots, "nvme0n1p1").at("EIO").max_retries, -1);
  EXPECT_THAT(SetXfsRetries(roots, "nvme0n1p1", {.max_retries = 3, .timeout = absl::Seconds(5)}),
              IsOk());
  const auto retries = ReadXfsRetries(roots, "nvme0n1p1");
  EXPECT_EQ(retries.at("EIO").max_retries, 3);
  EXPECT_EQ(retries.at("default").timeout_seconds, 5);
  EXPECT_EQ(retries.at("ENOSPC").max_retries, -1);
  EXPECT_THAT(ReadXfsRetries(roots, "sda1"), IsEmpty());
}

TEST(XfsRetriesTest, NamesAndLimitsAreChecked) {
  metal::testing::TempDir dir;
  const SysRoots roots{.proc = dir.File("proc"), .sys = dir.File("sys"), .dev = dir.File("dev")};
  for (const char* name :
       {"", ".", "..", "../x", "a/b", "NVME", "nvme0n1p1 ", "a123456789012345678901234567890123"}) {
    EXPECT_THAT(SetXfsRetries(roots, name, {}), StatusIs(absl::StatusCode::kInvalidArgument))
        << name;
  }
  EXPECT_THAT(SetXfsRetries(roots, "sda1", {.max_retries = -1}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(SetXfsRetries(roots, "sda1", {.timeout = absl::ZeroDuration()}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(SetXfsRetries(roots, "sda1", {}), StatusIs(absl::StatusCode::kNotFound));
}

// One event of fanotify: a record with the file's id, which is skipped, and one with the error.
std::vector<std::byte> ErrorEvent(int error, uint32_t count) {
  constexpr size_t kIdSize = 28;
  std::vector<std::byte> bytes(sizeof(fanotify_event_metadata) + kIdSize +
                               sizeof(fanotify_event_info_error));
  fanotify_event_metadata event{};
  event.event_len = static_cast<uint32_t>(bytes.size());
  event.metadata_len = sizeof event;
  event.mask = FAN_FS_ERROR;
  std::memcpy(bytes.data(), &event, sizeof event);
  const fanotify_event_info_header id{
      .info_type = FAN_EVENT_INFO_TYPE_FID, .pad = 0, .len = kIdSize};
  std::memcpy(&bytes[sizeof event], &id, sizeof id);
  fanotify_event_info_error info{};
  info.hdr = {.info_type = FAN_EVENT_INFO_TYPE_ERROR, .pad = 0, .len = sizeof info};
  info.error = error;
  info.error_count = count;
  std::memcpy(&bytes[sizeof event + kIdSize], &info, sizeof info);
  return bytes;
}

TEST(FilesystemErrorTest, RecordsAreDecodedOneAfterTheOther) {
  std::vector<std::byte> bytes = ErrorEvent(EIO, 1);
  const std::vector<std::byte> second = ErrorEvent(EUCLEAN, 7);
  bytes.insert(bytes.end(), second.begin(), second.end());
  const auto errors = ParseFilesystemErrors(bytes);
  ASSERT_THAT(errors, SizeIs(2));
  EXPECT_EQ(errors[0].error_number, EIO);
  EXPECT_EQ(errors[1].count, 7u);
  const Evidence shutdown = JudgeFilesystemError(errors[0], kXfs, kNow);
  EXPECT_EQ(shutdown.fault_class, FaultClass::kFilesystemShutdown);
  EXPECT_EQ(shutdown.witness, Witness::kFilesystem);
  const Evidence corrupt = JudgeFilesystemError(errors[1], kXfs, kNow);
  EXPECT_EQ(corrupt.fault_class, FaultClass::kCorruption);
  EXPECT_EQ(corrupt.delta, 7);
}

TEST(FilesystemErrorTest, CutRecordsAreLeftOut) {
  const std::vector<std::byte> whole = ErrorEvent(EIO, 1);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(ParseFilesystemErrors(std::span(whole).first(size)), IsEmpty()) << size;
  }
  std::vector<std::byte> endless = whole;
  endless[sizeof(fanotify_event_metadata) + 2] = std::byte{0};  // length 0 of a record
  EXPECT_THAT(ParseFilesystemErrors(endless), IsEmpty());
}

}  // namespace
}  // namespace metal::disk
