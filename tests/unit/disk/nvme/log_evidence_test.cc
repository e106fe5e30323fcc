#include "agent/disk/nvme/log_evidence.h"

#include <functional>

#include "gmock/gmock.h"
#include "tests/unit/disk/nvme/healthy_logs.h"

namespace metal::disk {
namespace {

using metal::testing::Healthy;
using metal::testing::SelfTest;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Change = std::function<void(DriveLogs&)>;

ErrorEntry Error(uint64_t number, uint8_t type, uint8_t code, uint64_t lba = 100) {
  ErrorEntry entry;
  entry.number = number;
  entry.queue = 1;
  entry.name_space = 1;
  entry.status = {.type = type, .code = code};
  entry.lba = lba;
  return entry;
}

PersistentEvent HardwareError(uint16_t code, uint64_t timestamp) {
  PersistentEvent event;
  event.type = kEventHardwareError;
  event.hardware_error = code;
  event.timestamp_ms = timestamp;
  return event;
}

struct Row {
  const char* name;
  Change before, after;
  FaultClass fault_class;
  Witness witness;
  Lasting lasting;
  const char* text;
  std::optional<int64_t> delta;
};

void Nothing(DriveLogs&) {}

const Row kRows[] = {
    {"spare",
     Nothing,
     [](DriveLogs& l) { l.smart->critical_warning = kSpareBelowThreshold; },
     FaultClass::kSpareLow,
     Witness::kSmartLog,
     Lasting::kState,
     "spare blocks",
     {}},
    {"hot",
     Nothing,
     [](DriveLogs& l) { l.smart->critical_warning = kTemperatureOutOfRange; },
     FaultClass::kOverheating,
     Witness::kSmartLog,
     Lasting::kState,
     "out of range",
     {}},
    {"degraded",
     Nothing,
     [](DriveLogs& l) { l.smart->critical_warning = kReliabilityDegraded; },
     FaultClass::kUnreliable,
     Witness::kSmartLog,
     Lasting::kState,
     "unreliable",
     {}},
    {"read-only",
     Nothing,
     [](DriveLogs& l) { l.smart->critical_warning = kMediaReadOnly; },
     FaultClass::kReadOnly,
     Witness::kSmartLog,
     Lasting::kState,
     "0x08: it has made its media",
     {}},
    {"backup",
     Nothing,
     [](DriveLogs& l) { l.smart->critical_warning = kVolatileMemoryBackupFailed; },
     FaultClass::kUnreliable,
     Witness::kSmartLog,
     Lasting::kState,
     "lost with power",
     {}},
    {"memory region",
     Nothing,
     [](DriveLogs& l) { l.smart->critical_warning = kPersistentMemoryUnreliable; },
     FaultClass::kUnreliable,
     Witness::kSmartLog,
     Lasting::kState,
     "memory region",
     {}},
    {"worn",
     Nothing,
     [](DriveLogs& l) { l.smart->percentage_used = 90; },
     FaultClass::kWearingOut,
     Witness::kSmartLog,
     Lasting::kState,
     "90 % of its rated life is used, it",
     {}},
    {"worn out",
     Nothing,
     [](DriveLogs& l) { l.smart->percentage_used = 100; },
     FaultClass::kWearingOut,
     Witness::kSmartLog,
     Lasting::kState,
     "100 % of its rated life",
     {}},
    {"media errors", Nothing, [](DriveLogs& l) { l.smart->media_errors = 5; },
     FaultClass::kMediaError, Witness::kSmartLog, Lasting::kOnce, "2 more media errors, 5 over", 2},
    {"warm", Nothing, [](DriveLogs& l) { l.smart->warning_temperature_time = absl::Minutes(8); },
     FaultClass::kOverheating, Witness::kSmartLog, Lasting::kGrowth, "60 s above its warning", 60},
    {"critically hot", Nothing,
     [](DriveLogs& l) {
       l.smart->critical_temperature_time = absl::Minutes(1);
       l.smart->warning_temperature_time = absl::Minutes(9);
     },
     FaultClass::kOverheating, Witness::kSmartLog, Lasting::kGrowth, "above its critical", 60},
    {"throttled", Nothing, [](DriveLogs& l) { l.smart->thermal_throttled[1] = absl::Seconds(4); },
     FaultClass::kOverheating, Witness::kSmartLog, Lasting::kGrowth, "4 s throttled heavily", 4},
    {"lightly throttled", Nothing,
     [](DriveLogs& l) { l.smart->thermal_throttled[0] = absl::Seconds(9); },
     FaultClass::kOverheating, Witness::kSmartLog, Lasting::kGrowth, "9 s throttled lightly", 9},
    {"unreadable", Nothing,
     [](DriveLogs& l) {
       l.errors = {Error(12, 2, 0x81), Error(11, 2, 0x81)};
     },
     FaultClass::kMediaError, Witness::kErrorLog, Lasting::kOnce,
     "2 new in its error log: unrecovered read error (status 2/81h) at LBA 100 of namespace 1", 2},
    {"unwritten", Nothing, [](DriveLogs& l) { l.errors = {Error(1, 2, 0x80)}; },
     FaultClass::kWriteError, Witness::kErrorLog, Lasting::kOnce, "write fault", 1},
    {"guard", Nothing, [](DriveLogs& l) { l.errors = {Error(1, 2, 0x82)}; },
     FaultClass::kCorruption, Witness::kErrorLog, Lasting::kOnce, "guard check", 1},
    {"protected", Nothing, [](DriveLogs& l) { l.errors = {Error(1, 0, 0x20)}; },
     FaultClass::kReadOnly, Witness::kErrorLog, Lasting::kOnce, "write protected", 1},
    {"internal", [](DriveLogs& l) { l.errors = {Error(8, 2, 0x81)}; },
     [](DriveLogs& l) {
       l.errors = {Error(9, 0, 0x06), Error(8, 2, 0x81)};
     },
     FaultClass::kUnreliable, Witness::kErrorLog, Lasting::kOnce, "internal error", 1},
    {"self-test",
     Nothing,
     [](DriveLogs& l) {
       l.self_tests->results = {SelfTest(2), SelfTest(7), SelfTest(0)};
     },
     FaultClass::kUnreliable,
     Witness::kErrorLog,
     Lasting::kState,
     "extended self-test failed in segment 3, at 999 h",
     {}},
    {"hardware",
     [](DriveLogs& l) { l.events->events = {HardwareError(9, 10)}; },
     [](DriveLogs& l) {
       l.events->events = {HardwareError(0x0a, 20), HardwareError(9, 10)};
     },
     FaultClass::kMediaError,
     Witness::kErrorLog,
     Lasting::kOnce,
     "media and data integrity",
     {}},
    {"controller",
     Nothing,
     [](DriveLogs& l) { l.events->events = {HardwareError(kHardwareControllerFatal, 10)}; },
     FaultClass::kControllerReset,
     Witness::kErrorLog,
     Lasting::kOnce,
     "controller fatal status",
     {}},
    {"link event",
     Nothing,
     [](DriveLogs& l) { l.events->events = {HardwareError(kHardwarePcieLinkInactive, 10)}; },
     FaultClass::kLinkDegraded,
     Witness::kErrorLog,
     Lasting::kOnce,
     "link not active",
     {}},
    {"capacitor",
     Nothing,
     [](DriveLogs& l) { l.ocp->capacitor_percent = 4; },
     FaultClass::kUnreliable,
     Witness::kVendorLog,
     Lasting::kState,
     "4 % of energy",
     {}},
    {"throttling",
     Nothing,
     [](DriveLogs& l) { l.ocp->throttling_level = 2; },
     FaultClass::kOverheating,
     Witness::kVendorLog,
     Lasting::kState,
     "level 2",
     {}},
    {"uncorrectable", Nothing, [](DriveLogs& l) { l.ocp->uncorrectable_reads = 1; },
     FaultClass::kMediaError, Witness::kVendorLog, Lasting::kOnce, "could not correct", 1},
    {"end to end", [](DriveLogs& l) { l.ocp->end_to_end_detected = 2; },
     [](DriveLogs& l) {
       l.ocp->end_to_end_detected = 5;
       l.ocp->end_to_end_corrected = 2;
     },
     FaultClass::kCorruption, Witness::kVendorLog, Lasting::kOnce, "did not correct", 1},
    {"die", [](DriveLogs& l) { l.ocp->dies_offline = 0; },
     [](DriveLogs& l) { l.ocp->dies_offline = 1; }, FaultClass::kUnreliable, Witness::kVendorLog,
     Lasting::kOnce, "dies offline", 1},
    {"timeouts", [](DriveLogs& l) { l.ocp->command_timeouts = 3; },
     [](DriveLogs& l) { l.ocp->command_timeouts = 4; }, FaultClass::kControllerReset,
     Witness::kVendorLog, Lasting::kOnce, "command timeouts", 1},
    {"PCIe errors", Nothing, [](DriveLogs& l) { l.ocp->pcie_correctable_errors = 30; },
     FaultClass::kLinkDegraded, Witness::kVendorLog, Lasting::kGrowth,
     "21 more correctable PCIe errors", 21},
    {"retraining", Nothing, [](DriveLogs& l) { l.ocp->pcie_link_retrainings = 3; },
     FaultClass::kLinkDegraded, Witness::kVendorLog, Lasting::kGrowth, "retrainings", 1},
    {"cloud limit", Nothing,
     [](DriveLogs& l) {
       l.aws->volume_over_iops = absl::Microseconds(500);
       l.aws->instance_over_throughput = absl::Microseconds(700);
     },
     FaultClass::kThrottled, Witness::kVendorLog, Lasting::kGrowth,
     "the volume's IOPS for 500 µs, the instance's throughput for 700 µs", 700},
    {"another serial",
     Nothing,
     [](DriveLogs& l) { l.identity.serial = "METAL0002"; },
     FaultClass::kWrongDevice,
     Witness::kInventory,
     Lasting::kState,
     "serial METAL0002 instead of METAL0001",
     {}},
    {"smaller",
     Nothing,
     [](DriveLogs& l) { l.identity.size_bytes = 1 << 20; },
     FaultClass::kWrongDevice,
     Witness::kInventory,
     Lasting::kState,
     "1048576 bytes instead of 1073741824",
     {}},
    {"firmware",
     Nothing,
     [](DriveLogs& l) {
       l.identity.model = l.noted->model = "EK0800JVYPN";
       l.identity.firmware = "HPD5";
       l.smart->power_on_hours = 39'900;
     },
     FaultClass::kFirmwareClock,
     Witness::kInventory,
     Lasting::kState,
     "at 40000 h of power-on, it has 39900 h; HPD7 mends it",
     {}},
    {"volatile cache",
     Nothing,
     [](DriveLogs& l) {
       l.controller->volatile_write_cache = true;
       l.controller->atomic_write_power_fail_blocks = 2;
       l.ocp.reset();
     },
     FaultClass::kTornWrites,
     Witness::kInventory,
     Lasting::kState,
     "writes of 8192 bytes",
     {}},
};

TEST(LogEvidenceTest, EachChangeIsOneFinding) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    DriveLogs before = Healthy(), after = Healthy();
    row.before(before);
    row.after(after);
    const std::vector<Finding> found = FindingsOfLogs("nvme0n1", &before, after);
    ASSERT_EQ(found.size(), 1u);
    const Evidence& evidence = found[0].evidence;
    EXPECT_EQ(evidence.fault_class, row.fault_class);
    EXPECT_EQ(evidence.witness, row.witness);
    EXPECT_EQ(found[0].lasting, row.lasting);
    EXPECT_EQ(evidence.device, "nvme0n1");
    EXPECT_FALSE(evidence.clears);
    EXPECT_THAT(evidence.text, HasSubstr(row.text));
    EXPECT_EQ(evidence.delta, row.delta);
    EXPECT_EQ(evidence.time, after.time);
  }
}

TEST(LogEvidenceTest, WhatWasSoBeforeIsToldOnlyWhenItIsAState) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    DriveLogs logs = Healthy();
    row.after(logs);
    const size_t states = row.lasting == Lasting::kState ? 1 : 0;
    EXPECT_EQ(FindingsOfLogs("nvme0n1", nullptr, logs).size(), states);
    EXPECT_EQ(FindingsOfLogs("nvme0n1", &logs, logs).size(), states);
  }
}

TEST(LogEvidenceTest, CountersThatWereResetSayNothing) {
  DriveLogs before = Healthy(), after = Healthy();
  before.smart->media_errors = 100;
  before.smart->warning_temperature_time = absl::Hours(5);
  before.ocp->pcie_correctable_errors = 1'000;
  before.aws->volume_over_iops = absl::Seconds(1);
  before.errors = {Error(90, 2, 0x81)};
  after.errors = {Error(4, 2, 0x81)};
  EXPECT_THAT(FindingsOfLogs("nvme0n1", &before, after), IsEmpty());
}

TEST(LogEvidenceTest, LogsThatAreAbsentSayNothing) {
  DriveLogs bare;
  const DriveLogs healthy = Healthy();
  EXPECT_THAT(FindingsOfLogs("nvme0n1", nullptr, bare), IsEmpty());
  EXPECT_THAT(FindingsOfLogs("nvme0n1", &bare, healthy), IsEmpty());
  EXPECT_THAT(FindingsOfLogs("nvme0n1", &healthy, bare), IsEmpty());
}

// Our own and other tools' commands that a drive refused, and what the host itself gave up.
TEST(LogEvidenceTest, NoiseInTheErrorLogIsNoEvidence) {
  const DriveLogs before = Healthy();
  DriveLogs after = Healthy();
  ErrorEntry refused = Error(1, 1, 0x09);
  refused.queue = 0;
  after.errors = {Error(5, 3, 0x71), Error(4, 0, 0x07), Error(3, 0, 0x02), Error(2, 7, 0x01),
                  refused};
  after.smart->error_log_entries = 5;
  EXPECT_THAT(FindingsOfLogs("nvme0n1", &before, after), IsEmpty());
}

TEST(LogEvidenceTest, AnErrorNamesItsSectorOnlyWhenItIsOnThisDisk) {
  struct Case {
    uint32_t name_space;
    uint16_t queue;
    uint64_t lba;
    std::optional<uint64_t> sector;
  };
  for (const Case& each : {Case{1, 1, 100, 800}, Case{2, 1, 100, {}}, Case{1, 0, 100, {}},
                           Case{1, 1, 1 << 20, {}}, Case{1, 1, UINT64_MAX, {}}}) {
    const DriveLogs before = Healthy();
    DriveLogs after = Healthy();
    after.errors = {Error(1, 2, 0x81, each.lba)};
    after.errors->front().name_space = each.name_space;
    after.errors->front().queue = each.queue;
    const auto found = FindingsOfLogs("nvme0n1", &before, after);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].evidence.sector, each.sector) << each.lba;
    EXPECT_EQ(found[0].evidence.nvme_status->code, 0x81);
  }
}

TEST(LogEvidenceTest, ACacheWithCapacitorsIsNoVolatileOne) {
  DriveLogs logs = Healthy();
  logs.controller->volatile_write_cache = true;
  EXPECT_THAT(FindingsOfLogs("nvme0n1", nullptr, logs), IsEmpty());
  logs.ocp->capacitor_percent.reset();
  EXPECT_EQ(FindingsOfLogs("nvme0n1", nullptr, logs).size(), 1u);
}

TEST(LogEvidenceTest, AVolumeThatGrewIsTheSame) {
  DriveLogs logs = Healthy();
  logs.identity.size_bytes *= 2;
  EXPECT_THAT(FindingsOfLogs("nvme0n1", nullptr, logs), IsEmpty());
}

}  // namespace
}  // namespace metal::disk
