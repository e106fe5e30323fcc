#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "agent/base/clock.h"
#include "agent/disk/probe_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

using metal::testing::StatusIs;
using ::testing::HasSubstr;

// Opens the device, or skips when this place has no O_DIRECT.
#define OPEN_OR_SKIP(device)                                             \
  do {                                                                   \
    const absl::Status status = (device).Open([] {});                    \
    if (absl::IsUnimplemented(status)) GTEST_SKIP() << status.message(); \
    ASSERT_OK(status);                                                   \
  } while (false)

std::vector<ProbeCompletion> WaitFor(ProbeDevice& device, size_t count) {
  std::vector<ProbeCompletion> completions;
  for (int i = 0; i < 100 && completions.size() < count; ++i) {
    device.Wait(absl::Milliseconds(100), completions);
  }
  return completions;
}

// With a ring (where the kernel has one) and without.
class ProbeIoTest : public ::testing::TestWithParam<ProbeIo> {};
INSTANTIATE_TEST_SUITE_P(Both, ProbeIoTest,
                         ::testing::Values(ProbeIo::kRing, ProbeIo::kSynchronous),
                         [](const auto& each) {
                           return each.param == ProbeIo::kRing ? "Ring" : "Synchronous";
                         });

TEST_P(ProbeIoTest, WhatIsWrittenIsReadBack) {
  metal::testing::TempDir dir;
  const auto device = MakeFileProbeDevice(dir.File("probe"), GetParam());
  int steps = 0;
  const absl::Status status = device->Open([&] { ++steps; });
  if (absl::IsUnimplemented(status)) GTEST_SKIP() << status.message();
  ASSERT_OK(status);
  EXPECT_GT(steps, 16);
  std::memset(device->Buffer(0).data(), 0x5a, kProbeBlockSize);
  device->StartWrite(0, 4095);
  auto done = WaitFor(*device, 1);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].result, 4096);
  device->StartRead(1, 4095);
  device->StartRead(7, 0);
  done = WaitFor(*device, 2);
  ASSERT_EQ(done.size(), 2u);
  EXPECT_EQ(done[0].result, 4096);
  EXPECT_EQ(std::memcmp(device->Buffer(0).data(), device->Buffer(1).data(), kProbeBlockSize), 0);
  EXPECT_EQ(device->Buffer(7)[100], std::byte{0});
}

TEST(FileProbeDeviceTest, TheFileIsWholePrivateAndReused) {
  metal::testing::TempDir dir;
  const std::string path = dir.File("probe");
  const auto device = MakeFileProbeDevice(path);
  OPEN_OR_SKIP(*device);
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_size, 16 << 20);
  EXPECT_GE(info.st_blocks * 512, 16 << 20);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_FALSE(std::filesystem::exists(path + ".new"));
  device->Close();
  int steps = 0;
  ASSERT_OK(device->Open([&] { ++steps; }));
  EXPECT_LT(steps, 10) << "written again";
}

TEST(FileProbeDeviceTest, AHalfWrittenOrSparseFileIsMadeAgain) {
  metal::testing::TempDir dir;
  const std::string path = dir.File("probe");
  std::ofstream(path) << "short";
  std::ofstream(path + ".new") << "left by a crash";
  {
    const auto device = MakeFileProbeDevice(path);
    OPEN_OR_SKIP(*device);
    EXPECT_EQ(std::filesystem::file_size(path), 16u << 20);
  }
  std::filesystem::remove(path);
  std::ofstream(path) << "";
  std::filesystem::resize_file(path, 16 << 20);
  const auto device = MakeFileProbeDevice(path);
  ASSERT_OK(device->Open([] {}));
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_GE(info.st_blocks * 512, 16 << 20);
}

TEST(FileProbeDeviceTest, ASecondProberIsRefused) {
  metal::testing::TempDir dir;
  const auto first = MakeFileProbeDevice(dir.File("probe"));
  OPEN_OR_SKIP(*first);
  const auto second = MakeFileProbeDevice(dir.File("probe"));
  EXPECT_THAT(second->Open([] {}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("another process")));
  first->Close();
  EXPECT_OK(second->Open([] {}));
}

// Two agents that begin at once with one directory (a repository that they share).
TEST(FileProbeDeviceTest, ASecondOneMeanwhileLeavesTheFirstOnesFileWhole) {
  metal::testing::TempDir dir;
  const std::string path = dir.File("probe");
  const auto first = MakeFileProbeDevice(path);
  const auto second = MakeFileProbeDevice(path);
  int refused = 0;
  const absl::Status opened = first->Open([&] {
    if (std::filesystem::exists(path + ".new") && absl::IsUnavailable(second->Open([] {}))) {
      ++refused;
    }
  });
  if (absl::IsUnimplemented(opened)) GTEST_SKIP() << opened.message();
  ASSERT_OK(opened);
  EXPECT_GT(refused, 60) << "at every step";
  EXPECT_EQ(std::filesystem::file_size(path), 16u << 20);
  EXPECT_FALSE(first->WasCut());
}

TEST(FileProbeDeviceTest, AFileThatWasCutIsKnown) {
  metal::testing::TempDir dir;
  const std::string path = dir.File("probe");
  const auto device = MakeFileProbeDevice(path);
  OPEN_OR_SKIP(*device);
  device->StartWrite(0, 4095);
  ASSERT_EQ(WaitFor(*device, 1).size(), 1u);
  EXPECT_FALSE(device->WasCut());
  std::filesystem::resize_file(path, 8 << 20);
  EXPECT_TRUE(device->WasCut());
  device->StartWrite(0, 4095);  // as long as it was, and half of it a hole
  ASSERT_EQ(WaitFor(*device, 1).size(), 1u);
  EXPECT_EQ(std::filesystem::file_size(path), 16u << 20);
  EXPECT_TRUE(device->WasCut());
  ASSERT_OK(device->Open([] {}));
  EXPECT_FALSE(device->WasCut());
}

// Another thread starts programs all the time: a copy of our descriptors lives on for a moment.
TEST(FileProbeDeviceTest, AForkMeanwhileDoesNotKeepTheLock) {
  metal::testing::TempDir dir;
  const auto device = MakeFileProbeDevice(dir.File("probe"));
  std::vector<pid_t> children;
  const auto fork_child = [&] {
    const pid_t child = fork();
    if (child == 0) {
      pause();
      _exit(0);
    }
    children.push_back(child);
  };
  int steps = 0;
  const absl::Status created = device->Open([&] {
    if (++steps % 10 == 0) fork_child();
  });
  fork_child();
  device->Close();
  const absl::Status again = device->Open([] {});
  for (const pid_t child : children) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  if (absl::IsUnimplemented(created)) GTEST_SKIP() << created.message();
  EXPECT_OK(created);
  EXPECT_OK(again);
  EXPECT_GT(children.size(), 2u);
}

// Writes past this size fail with EFBIG while the object lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &before_), 0);
    const rlimit tight{bytes, before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  }
  ~FileSizeLimit() {
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before_), 0);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*const handler_)(int);
};

TEST_P(ProbeIoTest, AnErrorOfTheDeviceIsACompletion) {
  metal::testing::TempDir dir;
  const auto device = MakeFileProbeDevice(dir.File("probe"), GetParam());
  OPEN_OR_SKIP(*device);
  const FileSizeLimit limit(8 << 20);
  device->StartWrite(3, 4000);
  const auto done = WaitFor(*device, 1);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].slot, 3u);
  EXPECT_EQ(done[0].result, -EFBIG);
}

TEST_P(ProbeIoTest, AReadPastTheEndIsShort) {
  metal::testing::TempDir dir;
  const auto device = MakeFileProbeDevice(dir.File("probe"), GetParam());
  OPEN_OR_SKIP(*device);
  std::filesystem::resize_file(dir.File("probe"), 8 << 20);
  device->StartRead(3, 4000);
  const auto done = WaitFor(*device, 1);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].slot, 3u);
  EXPECT_EQ(done[0].result, 0);
}

TEST_P(ProbeIoTest, AWakeEndsAWait) {
  metal::testing::TempDir dir;
  const auto device = MakeFileProbeDevice(dir.File("probe"), GetParam());
  OPEN_OR_SKIP(*device);
  std::vector<ProbeCompletion> completions;
  for (int i = 0; i < 3; ++i) {
    device->Wake();
    const base::MonotonicTime start = base::RealClock().Monotonic();
    device->Wait(absl::Seconds(20), completions);
    EXPECT_LT(base::RealClock().Monotonic() - start, absl::Seconds(10));
    EXPECT_TRUE(completions.empty());
  }
  const base::MonotonicTime start = base::RealClock().Monotonic();
  device->Wait(absl::Milliseconds(50), completions);
  EXPECT_GE(base::RealClock().Monotonic() - start, absl::Milliseconds(45));
}

TEST(FileProbeDeviceTest, MemoryHasNoDevice) {
  if (!std::filesystem::is_directory("/dev/shm")) GTEST_SKIP() << "no /dev/shm here";
  const auto device = MakeFileProbeDevice("/dev/shm/metal-probe-test");
  EXPECT_THAT(device->Open([] {}), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("memory")));
  EXPECT_FALSE(std::filesystem::exists("/dev/shm/metal-probe-test"));
}

TEST(FileProbeDeviceTest, AMissingDirectoryIsNotFound) {
  metal::testing::TempDir dir;
  EXPECT_THAT(MakeFileProbeDevice(dir.File("nowhere/probe"))->Open([] {}),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST(FileProbeDeviceTest, ALinkIsNotFollowed) {
  metal::testing::TempDir dir;
  dir.Write("victim", "precious");
  std::filesystem::create_symlink(dir.File("victim"), dir.File("probe"));
  const auto device = MakeFileProbeDevice(dir.File("probe"));
  EXPECT_FALSE(device->Open([] {}).ok());
  EXPECT_EQ(std::filesystem::file_size(dir.File("victim")), 8u);
}

}  // namespace
}  // namespace metal::disk
