// Lengths of time: as the command line takes them, and as requests carry them. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"

namespace metal::ctl {

// "500ms", "0.5s", "0.5" (seconds), "2m", "1m30s", "1h". nullopt unless it is more than zero and at
// most 30 days.
std::optional<absl::Duration> ParseDuration(std::string_view text);

// "500ms", "1m30s": what ParseDuration reads back.
std::string DurationText(absl::Duration duration);

// Exact to the nanosecond.
google::protobuf::Duration DurationProto(absl::Duration duration);

}  // namespace metal::ctl
