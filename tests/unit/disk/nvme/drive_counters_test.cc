#include "agent/disk/nvme/drive_counters.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/disk/nvme/healthy_logs.h"

namespace metal::disk {
namespace {

using metal::testing::Healthy;
using ::testing::IsEmpty;

TEST(DriveCountersTest, WhatWorkAloneChangesIsLeftOut) {
  const DriveLogs before = Healthy();
  DriveLogs now = before;
  now.smart->host_read.value += 4096;
  now.smart->host_written.value += 4096;
  ++now.smart->host_read_commands;
  ++now.smart->host_write_commands;
  now.smart->controller_busy += absl::Minutes(1);
  ++now.smart->power_on_hours;
  now.smart->temperature_celsius = 61;
  now.smart->sensors_celsius[0] = 63;
  ++now.ocp->media_bytes_written;
  ++now.ocp->media_bytes_read;
  ++now.ocp->most_erases;
  now.ocp->free_blocks_percent = 40;
  ++now.aws->read_ops;
  now.aws->write_time += absl::Seconds(1);
  now.aws->queue_length = 7;
  EXPECT_THAT(ChangesOfCounters(before, now).changes, IsEmpty());
}

TEST(DriveCountersTest, EachLogsCountersAreComparedAndAResetIsAChangeToo) {
  const DriveLogs before = Healthy();
  DriveLogs now = before;
  now.smart->warning_temperature_time += absl::Minutes(2);
  now.ocp->pcie_link_retrainings = 0;
  now.aws->volume_over_iops += absl::Microseconds(5);
  const CounterChanges found = ChangesOfCounters(before, now);
  ASSERT_EQ(found.changes.size(), 3u);
  EXPECT_EQ(found.changes[0].name, "warning_temperature_minutes");
  EXPECT_EQ(found.changes[0].before, 7u);
  EXPECT_EQ(found.changes[0].now, 9u);
  EXPECT_EQ(found.changes[1].name, "pcie_link_retrainings");
  EXPECT_EQ(found.changes[1].now, 0u);
  EXPECT_EQ(found.changes[2].name, "volume_over_iops_microseconds");
  EXPECT_TRUE(found.notable);
}

TEST(DriveCountersTest, WhatOthersCommandsCauseIsNotNotable) {
  const DriveLogs before = Healthy();
  DriveLogs now = before;
  ++now.smart->error_log_entries;
  EXPECT_FALSE(ChangesOfCounters(before, now).notable);
  ++now.smart->media_errors;
  EXPECT_TRUE(ChangesOfCounters(before, now).notable);
}

TEST(DriveCountersTest, ALogThatOneReadingLacksSaysNothing) {
  DriveLogs before = Healthy(), now = Healthy();
  before.smart.reset();
  now.ocp.reset();
  before.ocp->pcie_correctable_errors = 1;
  EXPECT_THAT(ChangesOfCounters(before, now).changes, IsEmpty());
}

}  // namespace
}  // namespace metal::disk
