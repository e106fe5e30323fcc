// What a slow detector has learned of a drive, kept between two runs of the agent. Without it each
// restart begins half an hour in which no drive is told to be slow, and at whose end a slow drive's
// latency is its own normal. Threading: plain values and pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::disk {

// Of a RobustMean.
struct LearnedMean {
  uint32_t count = 0;
  double mean = 0, variance = 0;
  friend bool operator==(const LearnedMean&, const LearnedMean&) = default;
};

// Of one statistic of the probes.
struct LearnedChannel {
  std::map<size_t, LearnedMean> bins;  // of the curve, those that saw anything
  LearnedMean history, difference;
  friend bool operator==(const LearnedChannel&, const LearnedChannel&) = default;
};

struct LearnedDrive {
  std::optional<absl::Time> time;          // when it was learned; nullopt: not kept yet
  std::array<LearnedChannel, 2> channels;  // median, p99
  friend bool operator==(const LearnedDrive&, const LearnedDrive&) = default;
};

using LearnedDrives = std::map<std::string, LearnedDrive>;  // by what names the drive

// Text of lines. Times are kept in seconds. REQUIRES: each drive has one.
std::string EncodeLearned(const LearnedDrives& drives);
// DATA_LOSS names the line that makes no sense; of a text that was cut, its end.
absl::StatusOr<LearnedDrives> DecodeLearned(std::string_view text);

}  // namespace metal::disk
