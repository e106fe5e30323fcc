// Decodes the NVMe Device Self-test log (log page 06h).
// Source: NVM Express Base Specification 2.0, "Device Self-test". Input: exactly 564 bytes,
// little-endian. A drive has it when bit 4 of OACS is set.
// Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace metal::disk {

inline constexpr uint8_t kSelfTestLogId = 0x06;
inline constexpr size_t kSelfTestLogSize = 564;

struct SelfTestResult {
  uint8_t test = 0;     // 1 short, 2 extended, eh the vendor's
  uint8_t result = 0;   // as the specification numbers them; SelfTestResultName
  uint8_t segment = 0;  // the first one that failed, for result 7
  uint64_t power_on_hours = 0;
  std::optional<uint32_t> name_space;
  std::optional<uint64_t> failing_lba;
  std::optional<uint8_t> status_type, status_code;  // of the failure

  bool passed() const { return result == 0; }
  bool failed() const { return result >= 5 && result <= 7; }  // the others were aborted
};

struct SelfTestLog {
  uint8_t running = 0;  // the test under way, numbered as in SelfTestResult; 0: none
  int percent_done = 0;
  std::vector<SelfTestResult> results;  // the newest first, 20 at most
};

// INVALID_ARGUMENT if page.size() != 564. Does not keep `page`.
absl::StatusOr<SelfTestLog> DecodeSelfTestLog(std::span<const std::byte> page);

std::string_view SelfTestName(uint8_t test);          // "short", "extended", …
std::string_view SelfTestResultName(uint8_t result);  // "passed", "aborted by a reset", …

}  // namespace metal::disk
