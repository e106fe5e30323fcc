#include "tools/metalctl/format.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "agent/base/units.h"
#include "fmt/format.h"

namespace metal::ctl {

std::string FormatBytes(int64_t bytes) {
  return base::ByteCount{static_cast<uint64_t>(bytes < 0 ? 0 : bytes)}.ToString();
}

std::string FormatRate(double bytes_per_second) {
  if (bytes_per_second >= 1e9) return fmt::format("{:.2f} GB/s", bytes_per_second / 1e9);
  if (bytes_per_second >= 1e6) return fmt::format("{:.0f} MB/s", bytes_per_second / 1e6);
  return fmt::format("{:.0f} kB/s", bytes_per_second / 1e3);
}

std::string FormatSeconds(double seconds) {
  if (seconds < 0) return "0 s";
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
  return fmt::format("{}d{:02}h", whole / 86400, whole / 3600 % 24);
}

double ToSeconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

std::string FormatDuration(const google::protobuf::Duration& duration) {
  return FormatSeconds(ToSeconds(duration));
}

std::string FormatLatency(const google::protobuf::Duration& duration) {
  const double seconds = ToSeconds(duration);
  if (seconds < 1e-3) return fmt::format("{:.0f} µs", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.1f} ms", seconds * 1e3);
  return FormatSeconds(seconds);
}

std::string FormatTime(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%SZ", absl::FromUnixSeconds(time.seconds()),
                          absl::UTCTimeZone());
}

std::string FormatAge(const google::protobuf::Timestamp& time,
                      const google::protobuf::Timestamp& now) {
  if (time.seconds() == 0) return "-";
  const int64_t seconds = std::max<int64_t>(0, now.seconds() - time.seconds());
  return seconds < 60 ? fmt::format("{} s", seconds) : FormatSeconds(static_cast<double>(seconds));
}

std::string FormatRatio(int64_t size_bytes, int64_t stored_bytes) {
  if (stored_bytes <= 0) return "-";
  return fmt::format("{:.2f}x",
                     static_cast<double>(size_bytes) / static_cast<double>(stored_bytes));
}

std::string FormatClock(const google::protobuf::Timestamp& time) {
  const absl::Time value = absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
  return absl::FormatTime("%Y-%m-%d %H:%M:%E3SZ", value, absl::UTCTimeZone());
}

std::vector<std::pair<std::string, std::string>> FormatFacts(
    const std::map<std::string, std::string>& facts) {
  std::vector<std::pair<std::string, std::string>> formatted;
  for (const auto& [name, value] : facts) {
    std::string label = name;
    std::string text = value;
    double number = 0;
    const bool is_number = absl::SimpleAtod(value, &number);
    if (name == "bytes_per_second" && is_number) {
      label = "rate";
      text = FormatRate(number);
    } else if ((name == "bytes" || name.ends_with("_bytes")) && is_number) {
      label = name == "bytes" ? "size" : name.substr(0, name.size() - 6);
      text = FormatBytes(static_cast<int64_t>(number));
    } else if ((name == "seconds" || name.ends_with("_seconds")) && is_number) {
      label = name == "seconds" ? "took" : name.substr(0, name.size() - 8);
      text = FormatSeconds(number);
    }
    std::replace(label.begin(), label.end(), '_', ' ');
    formatted.emplace_back(label, text);
  }
  return formatted;
}

void PrintNext(std::string_view step) { fmt::print("next: {}\n", step); }

std::string FormatLsn(uint64_t lsn) { return lsn == 0 ? "-" : base::Lsn{lsn}.ToString(); }

std::string EnumWord(std::string_view name, std::string_view prefix) {
  if (name.substr(0, prefix.size()) == prefix) name.remove_prefix(prefix.size());
  std::string word;
  for (const char c : name) {
    word += c == '_' ? ' ' : static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  }
  return word == "unspecified" ? "unknown" : word;
}

}  // namespace metal::ctl
