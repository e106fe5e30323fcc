// Logs of drives for tests of what they say.
// Threading: pure functions.
#pragma once

#include "agent/disk/nvme/drive_logs.h"

namespace metal::testing {

// A drive with every log, in good health.
inline disk::DriveLogs Healthy() {
  disk::DriveLogs logs;
  logs.time = absl::FromUnixSeconds(1'800'000'000);
  logs.identity = {
      .model = "Example SSD", .serial = "METAL0001", .firmware = "EX1", .size_bytes = 1 << 30};
  logs.noted = logs.identity;
  logs.controller.emplace();
  logs.name_space.emplace();
  logs.name_space->size_blocks = 1 << 20;
  logs.name_space->block_size = 4096;
  logs.name_space_id = 1;
  logs.smart.emplace();
  logs.smart->available_spare_percent = 100;
  logs.smart->power_on_hours = 1'000;
  logs.smart->media_errors = 3;
  logs.smart->warning_temperature_time = absl::Minutes(7);
  logs.errors.emplace();
  logs.self_tests.emplace();
  logs.events.emplace();
  logs.ocp.emplace();
  logs.ocp->capacitor_percent = 130;
  logs.ocp->pcie_correctable_errors = 9;
  logs.ocp->pcie_link_retrainings = 2;
  logs.aws.emplace();
  return logs;
}

// An extended test that ended as `result` says.
inline disk::SelfTestResult SelfTest(uint8_t result) {
  disk::SelfTestResult test;
  test.test = 2;
  test.result = result;
  test.segment = 3;
  test.power_on_hours = 999;
  return test;
}

}  // namespace metal::testing
