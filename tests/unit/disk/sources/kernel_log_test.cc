#include "agent/disk/sources/kernel_log.h"

#include <poll.h>

#include <cerrno>
#include <deque>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

using metal::testing::SimulatedClock;
using metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::SizeIs;

constexpr char kMedium[] =
    "critical medium error, dev nvme0n1, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class "
    "2";
constexpr char kRead[] =
    "I/O error, dev nvme0n1, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2";
constexpr char kTimeout[] = "nvme nvme0: I/O 1 QID 2 timeout, reset controller";

DiskNames OneDrive() {
  DiskNames names;
  for (const char* name : {"nvme0n1", "nvme0n1p1", "nvme0", "0000:3b:00.0", "b259:1"}) {
    names.Add(name, "nvme0n1");
  }
  names.SetBlockSize("nvme0n1", 4096);
  return names;
}

TEST(DiskNamesTest, PathsOfMultipathAndNamesOfRecordsLeadToTheDisk) {
  const DiskNames names = OneDrive();
  EXPECT_THAT(names.DiskOf("nvme0c3n1"), Optional(std::string("nvme0n1")));
  EXPECT_THAT(names.DiskOf("+pci:0000:3b:00.0"), Optional(std::string("nvme0n1")));
  EXPECT_THAT(names.DiskOf("+nvme:nvme0"), Optional(std::string("nvme0n1")));
  EXPECT_THAT(names.DiskOf("b259:1"), Optional(std::string("nvme0n1")));
  for (const char* other : {"nvme1n1", "nvme0n2", "", "?", "+", "nvme0c3n2", "0000:3b:00.1"}) {
    EXPECT_EQ(names.DiskOf(other), std::nullopt) << other;
  }
  EXPECT_THAT(names.SectorOf("nvme0n1", 256), Optional(uint64_t{2048}));
  EXPECT_EQ(names.SectorOf("sda", 256), std::nullopt);
}

TEST(DiskNamesTest, AStackBringsItsLayersNumbersControllerFunctionAndPort) {
  metal::testing::TempDir dir;
  const std::string function = "sys/devices/pci0000:00/0000:00:1c.0/0000:3b:00.0";
  dir.Write(function + "/nvme/nvme0/state", "live\n");
  dir.Write("sys/class/block/nvme0n1p1/dev", "259:1\n");
  std::filesystem::create_directories(dir.File("sys/class/nvme"));
  std::filesystem::create_symlink(dir.File(function + "/nvme/nvme0"),
                                  dir.File("sys/class/nvme/nvme0"));
  std::filesystem::create_symlink(dir.File(function), dir.File(function + "/nvme/nvme0/device"));
  StorageStack stack;
  stack.layers = {"dm-0", "nvme0n1p1", "nvme0n1"};
  stack.disks.resize(1);
  stack.disks[0].name = "nvme0n1";
  stack.disks[0].nvme_controller = "nvme0";
  stack.disks[0].logical_block_size = 512;
  DiskNames names;
  EXPECT_TRUE(names.empty());
  names.AddStack({.proc = dir.File("proc"), .sys = dir.File("sys"), .dev = dir.File("dev")}, stack);
  for (const char* name : {"dm-0", "nvme0n1p1", "nvme0n1", "nvme0", "b259:1", "0000:3b:00.0",
                           "+pci:0000:3b:00.0", "0000:00:1c.0"}) {
    EXPECT_THAT(names.DiskOf(name), Optional(std::string("nvme0n1"))) << name;
  }
  EXPECT_EQ(names.DiskOf("pci0000:00"), std::nullopt);
  EXPECT_THAT(names.SectorOf("nvme0n1", 8), Optional(uint64_t{8}));
}

TEST(DiskNamesTest, AVolumeOverSeveralDisksKeepsItsOwnName) {
  metal::testing::TempDir dir;
  StorageStack stack;
  stack.layers = {"md0", "nvme0n1", "nvme1n1"};
  stack.disks.resize(2);
  stack.disks[0].name = "nvme0n1";
  stack.disks[1].name = "nvme1n1";
  DiskNames names;
  names.AddStack({.proc = dir.File("proc"), .sys = dir.File("sys"), .dev = dir.File("dev")}, stack);
  EXPECT_THAT(names.DiskOf("md0"), Optional(std::string("md0")));
  EXPECT_THAT(names.DiskOf("nvme1n1"), Optional(std::string("nvme1n1")));
}

// Records that come from a script in place of /dev/kmsg: a text, or an errno.
class Judged : public ::testing::Test {
 protected:
  Findings Say(const std::string& text, const std::string& flags = "-",
               std::map<std::string, std::string> dictionary = {}) {
    base::KernelRecord record;
    record.text = text;
    record.continues = flags == "c";
    record.dictionary = std::move(dictionary);
    Findings findings;
    judge_.OnRecord(record, names_, {.time = clock_.Now(), .monotonic = clock_.Monotonic()},
                    findings);
    return findings;
  }
  Findings Tick() {
    Findings findings;
    judge_.Tick({.time = clock_.Now(), .monotonic = clock_.Monotonic()}, findings);
    return findings;
  }

  SimulatedClock clock_;
  DiskNames names_ = OneDrive();
  KernelLogJudge judge_;
};

TEST_F(Judged, EvidenceKeepsTheKernelsOwnLine) {
  const Findings findings = Say(kMedium);
  ASSERT_THAT(findings.evidence, SizeIs(1));
  const Evidence& evidence = findings.evidence.front();
  EXPECT_EQ(evidence.fault_class, FaultClass::kMediaError);
  EXPECT_EQ(evidence.witness, Witness::kKernelLog);
  EXPECT_EQ(evidence.device, "nvme0n1");
  EXPECT_EQ(evidence.kernel_line, kMedium);
  EXPECT_EQ(evidence.text, "nvme0n1: critical medium error of a READ");
  EXPECT_THAT(evidence.error_number, Optional(ENODATA));
  EXPECT_THAT(evidence.sector, Optional(uint64_t{2048}));
  EXPECT_EQ(evidence.time, clock_.Now());
  ASSERT_THAT(findings.events, SizeIs(1));
  EXPECT_EQ(findings.events.front().type, "disk.kernel_line");
  EXPECT_EQ(findings.events.front().subject, "nvme0n1");
  EXPECT_EQ(findings.events.front().attributes.at("class"), "media_error");
  EXPECT_EQ(findings.events.front().attributes.at("sector"), "2048");
}

TEST_F(Judged, OtherDisksAreNobodysBusiness) {
  const Findings findings =
      Say("critical medium error, dev sda, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio "
          "class 2");
  EXPECT_THAT(findings.evidence, IsEmpty());
  EXPECT_THAT(findings.events, IsEmpty());
}

TEST_F(Judged, BlocksOfANamespaceBecomeSectors) {
  const Findings findings = Say(
      "nvme0n1: Read(0x2) @ LBA 256, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) DNR ");
  ASSERT_THAT(findings.evidence, SizeIs(1));
  EXPECT_THAT(findings.evidence.front().sector, Optional(uint64_t{2048}));
  EXPECT_EQ(findings.evidence.front().nvme_status->code, 0x81);
  EXPECT_EQ(findings.events.front().attributes.at("nvme_status"), "2/81h");
}

TEST_F(Judged, SectorsOfAPartitionAreNotThoseOfTheDisk) {
  const Findings findings = Say("nvme0n1p1: writeback error on inode 131, offset 0, sector 40");
  ASSERT_THAT(findings.evidence, SizeIs(1));
  EXPECT_EQ(findings.evidence.front().device, "nvme0n1");
  EXPECT_EQ(findings.evidence.front().sector, std::nullopt);
  EXPECT_THAT(findings.evidence.front().text, HasSubstr("nvme0n1 (nvme0n1p1): "));
}

TEST_F(Judged, TheRecordsDeviceNamesTheDiskWhenTheLineDoesNot) {
  const std::string line = "?: Read(0x2) @ LBA 1, 1 blocks, Internal Error (sct 0x0 / sc 0x6) ";
  EXPECT_THAT(Say(line).evidence, IsEmpty());
  EXPECT_THAT(Say(line, "-", {{"DEVICE", "b259:1"}}).evidence, SizeIs(1));
}

TEST_F(Judged, PlainReadErrorsAfterAResetAreTheResets) {
  EXPECT_EQ(Say(kTimeout).evidence.front().fault_class, FaultClass::kControllerReset);
  clock_.Advance(absl::Seconds(4));
  EXPECT_THAT(Say(kRead).evidence, IsEmpty());
  EXPECT_EQ(Say(kRead).events.front().attributes.at("class"), "controller_reset");
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(Say(kRead).evidence.front().fault_class, FaultClass::kMediaError);
}

TEST_F(Judged, OneResetIsToldOnceHoweverManyLinesItMakes) {
  size_t told = 0;
  for (int second = 0; second < 150; second += 10) {
    told += Say(kTimeout).evidence.size();
    clock_.Advance(absl::Seconds(10));
  }
  EXPECT_EQ(told, 3u);  // at 0, 60 and 120 s
}

TEST_F(Judged, AWriteThatFailedAfterAResetIsLostAllTheSame) {
  Say(kTimeout);
  EXPECT_EQ(Say("I/O error, dev nvme0n1, sector 8 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2")
                .evidence.front()
                .fault_class,
            FaultClass::kWriteError);
}

TEST_F(Judged, ThePlainErrorGetsTheStatusToldJustBefore) {
  Say("nvme0n1: Read(0x2) @ LBA 256, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) DNR ");
  const Findings same = Say(kRead);
  ASSERT_TRUE(same.evidence.front().nvme_status.has_value());
  EXPECT_EQ(same.evidence.front().nvme_status->code, 0x81);
  const Findings elsewhere =
      Say("I/O error, dev nvme0n1, sector 9 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2");
  EXPECT_EQ(elsewhere.evidence.front().nvme_status, std::nullopt);
}

TEST_F(Judged, ALineInPiecesIsReadAsOne) {
  EXPECT_THAT(Say("nvme nvme0: controller is down; will").evidence, IsEmpty());
  EXPECT_THAT(Say(" reset: CSTS=0x3, PCI_STATUS=0x10", "c").evidence, SizeIs(1));
  EXPECT_THAT(Say(" and more", "c").evidence, IsEmpty());
}

TEST_F(Judged, LinesOfOneRecordAreReadOneByOne) {
  EXPECT_THAT(Say(std::string("first\n") + kMedium + "\n" + kTimeout).evidence, SizeIs(2));
}

TEST_F(Judged, CommandsThatTheDriveDoesNotOfferAreEventsOnly) {
  const Findings findings =
      Say("operation not supported error, dev nvme0n1, sector 8 op 0x9:(WRITE_ZEROES) flags 0x800 "
          "phys_seg 0 prio class 2");
  EXPECT_THAT(findings.evidence, IsEmpty());
  ASSERT_THAT(findings.events, SizeIs(1));
  EXPECT_EQ(findings.events.front().severity, observe::Severity::kInfo);
}

TEST_F(Judged, AStormIsEvidenceButFewEvents) {
  size_t evidence = 0, events = 0;
  for (int i = 0; i < 100; ++i) {
    const Findings findings = Say(kMedium);
    evidence += findings.evidence.size();
    events += findings.events.size();
  }
  EXPECT_EQ(evidence, 100u);
  EXPECT_EQ(events, 5u);
  EXPECT_THAT(Say(kTimeout).events, SizeIs(1));  // of another class
  EXPECT_THAT(Tick().events, IsEmpty());
  ASSERT_TRUE(judge_.NextTick().has_value());
  clock_.Advance(*judge_.NextTick() - clock_.Monotonic());
  const Findings summary = Tick();
  ASSERT_THAT(summary.events, SizeIs(1));
  EXPECT_EQ(summary.events.front().attributes.at("left_out"), "95");
  EXPECT_EQ(summary.events.front().subject, "nvme0n1");
  EXPECT_FALSE(judge_.NextTick().has_value());
  EXPECT_THAT(Say(kMedium).events, SizeIs(1));
}

TEST_F(Judged, EachLineOfAStormIsHandedOverOnceAndItsRepeatsAreCounted) {
  std::vector<KernelLine> lines;
  const auto say = [&](const std::string& text) {
    const Findings findings = Say(text);
    lines.insert(lines.end(), findings.lines.begin(), findings.lines.end());
  };
  for (int i = 0; i < 5; ++i) say(kMedium);
  EXPECT_THAT(lines, IsEmpty());  // events told them
  std::string other = kMedium;
  other.replace(other.find("2048"), 4, "4096");
  for (int i = 0; i < 50; ++i) say(i % 10 == 0 ? other : kMedium);
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_EQ(lines[0].text, other);
  EXPECT_EQ(lines[0].disk, "nvme0n1");
  EXPECT_EQ(lines[0].fault_class, "media_error");
  EXPECT_EQ(lines[0].again, 0);
  EXPECT_EQ(lines[1].text, kMedium);
  EXPECT_THAT(Tick().lines, IsEmpty());
  clock_.Advance(absl::Minutes(1));
  const Findings ended = Tick();
  ASSERT_THAT(ended.lines, SizeIs(2));
  EXPECT_EQ(ended.lines[0].again + ended.lines[1].again, 48);
  EXPECT_THAT(Tick().lines, IsEmpty());
}

TEST_F(Judged, AStormOfDifferentLinesEndsInTheRecorderToo) {
  size_t lines = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = kMedium;
    text.replace(text.find("2048"), 4, std::to_string(8 * i));
    lines += Say(text).lines.size();
  }
  EXPECT_EQ(lines, 2000u);
}

// What the device gives, one after the other: a record, or a negative errno.
class Scripted {
 public:
  explicit Scripted(std::deque<std::pair<int, std::string>> steps) : steps_(std::move(steps)) {}
  ReadRecord Reader() {
    return [this](int, std::span<char> buffer) -> ssize_t {
      if (steps_.empty()) {
        errno = EAGAIN;
        return -1;
      }
      const auto [error, text] = steps_.front();
      steps_.pop_front();
      if (error != 0) {
        errno = error;
        return -1;
      }
      text.copy(buffer.data(), buffer.size());
      return static_cast<ssize_t>(text.size());
    };
  }

 private:
  std::deque<std::pair<int, std::string>> steps_;
};

std::string RecordOf(int priority, int sequence, const std::string& text) {
  return std::to_string(priority) + "," + std::to_string(sequence) + ",1,-;" + text + "\n";
}

TEST(KernelLogTest, OverrunsAreCountedAndReadingGoesOn) {
  Scripted script({{0, RecordOf(3, 10, kMedium)},
                   {EINTR, ""},
                   {EPIPE, ""},
                   {0, RecordOf(3, 17, kMedium)},
                   {EINVAL, ""},
                   {0, "nonsense"},
                   {0, RecordOf(3, 19, kMedium)}});
  SimulatedClock clock;
  KernelLog log(base::UniqueFd(), script.Reader());
  Findings findings;
  EXPECT_TRUE(log.Drain(OneDrive(), clock, findings));
  EXPECT_THAT(findings.evidence, SizeIs(3));
  std::vector<std::string> lost;
  for (const observe::Event& event : findings.events) {
    if (event.type == "disk.kernel_lines_lost") lost.push_back(event.attributes.at("lost"));
  }
  EXPECT_THAT(lost, ElementsAre("6", "1"));
}

TEST(KernelLogTest, OnlyTheKernelIsBelieved) {
  Scripted script({{0, RecordOf(11, 1, kMedium)}});
  SimulatedClock clock;
  KernelLog log(base::UniqueFd(), script.Reader());
  Findings findings;
  EXPECT_TRUE(log.Drain(OneDrive(), clock, findings));
  EXPECT_THAT(findings.evidence, IsEmpty());
}

TEST(KernelLogTest, ADeviceThatFailsIsGivenUp) {
  Scripted broken({{EBADF, ""}});
  SimulatedClock clock;
  Findings findings;
  EXPECT_FALSE(KernelLog(base::UniqueFd(), broken.Reader()).Drain(OneDrive(), clock, findings));
  const ReadRecord ended = [](int, std::span<char>) -> ssize_t { return 0; };
  EXPECT_FALSE(KernelLog(base::UniqueFd(), ended).Drain(OneDrive(), clock, findings));
  const ReadRecord always_too_long = [](int, std::span<char>) -> ssize_t {
    errno = EINVAL;
    return -1;
  };
  EXPECT_FALSE(KernelLog(base::UniqueFd(), always_too_long).Drain(OneDrive(), clock, findings));
}

TEST(KernelLogTest, TheRealDeviceIsReadFromItsEnd) {
  auto device = OpenKernelLog();
  if (!device.ok()) GTEST_SKIP() << device.status().ToString();
  std::ofstream writer("/dev/kmsg");
  if (!writer) GTEST_SKIP() << "needs root to write to /dev/kmsg";
  SimulatedClock clock;
  KernelLog log(*std::move(device));
  log.TrustAllFacilities();
  Findings findings;
  EXPECT_TRUE(log.Drain(OneDrive(), clock, findings));
  EXPECT_THAT(findings.evidence, IsEmpty());
  // A name that no disk has: other readers of this host's log must not take it for theirs.
  DiskNames names;
  names.Add("nvme777n1", "nvme777n1");
  // The kernel drops what programs write when many do.
  for (int i = 0; i < 100 && findings.evidence.empty(); ++i) {
    writer << "<6>nvme777n1: detected capacity change from 8 to 0" << std::flush;
    pollfd wait{.fd = log.fd(), .events = POLLIN, .revents = 0};
    poll(&wait, 1, 100);
    EXPECT_TRUE(log.Drain(names, clock, findings));
  }
  ASSERT_FALSE(findings.evidence.empty());
  EXPECT_EQ(findings.evidence.front().fault_class, FaultClass::kGone);
}

TEST(KernelLogTest, AMissingDeviceIsAnError) {
  EXPECT_THAT(OpenKernelLog("/dev/no-kmsg"), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace metal::disk
