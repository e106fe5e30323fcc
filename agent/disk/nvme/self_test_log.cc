#include "agent/disk/nvme/self_test_log.h"

#include <array>

#include "agent/base/status.h"
#include "agent/disk/nvme/little_endian.h"

namespace metal::disk {
namespace {

constexpr size_t kResults = 20;
constexpr size_t kResultSize = 28;
constexpr uint8_t kUnused = 0xf;

SelfTestResult DecodeResult(std::span<const std::byte> data) {
  const auto status = LoadLe<uint8_t>(data, 0);
  const auto valid = LoadLe<uint8_t>(data, 2);
  SelfTestResult result;
  result.test = status >> 4;
  result.result = status & 0xf;
  result.segment = LoadLe<uint8_t>(data, 1);
  result.power_on_hours = LoadLe<uint64_t>(data, 4);
  if ((valid & 1) != 0) result.name_space = LoadLe<uint32_t>(data, 12);
  if ((valid & 2) != 0) result.failing_lba = LoadLe<uint64_t>(data, 16);
  if ((valid & 4) != 0) result.status_type = LoadLe<uint8_t>(data, 24) & 7;
  if ((valid & 8) != 0) result.status_code = LoadLe<uint8_t>(data, 25);
  return result;
}

}  // namespace

absl::StatusOr<SelfTestLog> DecodeSelfTestLog(std::span<const std::byte> page) {
  if (page.size() != kSelfTestLogSize) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode self-test log: {} bytes instead of {}", page.size(),
                       kSelfTestLogSize);
  }
  SelfTestLog log;
  log.running = LoadLe<uint8_t>(page, 0) & 0xf;
  log.percent_done = LoadLe<uint8_t>(page, 1) & 0x7f;
  for (size_t i = 0; i < kResults; ++i) {
    const SelfTestResult result = DecodeResult(page.subspan(4 + i * kResultSize, kResultSize));
    // A page of zeros is a drive that never tested itself, not one that passed twenty tests.
    if (result.result == kUnused || result.test == 0) continue;
    log.results.push_back(result);
  }
  return log;
}

std::string_view SelfTestName(uint8_t test) {
  switch (test) {
    case 1:
      return "short";
    case 2:
      return "extended";
    case 0xe:
      return "vendor's";
    default:
      return "unknown";
  }
}

std::string_view SelfTestResultName(uint8_t result) {
  static constexpr std::array<std::string_view, 10> kNames = {"passed",
                                                              "aborted by a command",
                                                              "aborted by a reset",
                                                              "aborted: a namespace was removed",
                                                              "aborted by a format",
                                                              "ended by a fatal error",
                                                              "failed in an unknown segment",
                                                              "failed",
                                                              "aborted for an unknown reason",
                                                              "aborted by a sanitize"};
  return result < kNames.size() ? kNames.at(result) : "unknown";
}

}  // namespace metal::disk
