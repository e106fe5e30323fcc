#include "tools/metalctl/duration.h"

#include <algorithm>
#include <string>

namespace metal::ctl {
namespace {

constexpr absl::Duration kLongest = absl::Hours(24 * 30);

bool IsDigitOrPoint(char c) { return (c >= '0' && c <= '9') || c == '.'; }

}  // namespace

std::optional<absl::Duration> ParseDuration(std::string_view text) {
  // Signs, blanks, "inf" and exponents are nothing that a person means here.
  if (text.empty() || !IsDigitOrPoint(text.front())) return std::nullopt;
  std::string with_unit(text);
  if (std::all_of(text.begin(), text.end(), IsDigitOrPoint)) with_unit += 's';
  absl::Duration parsed;
  if (!absl::ParseDuration(with_unit, &parsed)) return std::nullopt;
  if (parsed <= absl::ZeroDuration() || parsed > kLongest) return std::nullopt;
  return parsed;
}

std::string DurationText(absl::Duration duration) { return absl::FormatDuration(duration); }

google::protobuf::Duration DurationProto(absl::Duration duration) {
  const int64_t seconds = absl::ToInt64Seconds(duration);
  google::protobuf::Duration proto;
  proto.set_seconds(seconds);
  proto.set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(duration - absl::Seconds(seconds))));
  return proto;
}

}  // namespace metal::ctl
