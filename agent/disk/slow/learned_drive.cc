#include "agent/disk/slow/learned_drive.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "agent/base/check.h"
#include "agent/base/status.h"
#include "agent/disk/slow/latency_curve.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr char kHeader[] = "learned\t1";  // the number changes with the bins' meaning
constexpr char kEnd[] = "end";

constexpr double kLargest = 100;  // of what logarithms of latencies can be

using Fields = std::vector<std::string>;

std::string TextOf(const LearnedMean& mean) {
  return fmt::format("{}\t{:.17g}\t{:.17g}\n", mean.count, mean.mean, mean.variance);
}

bool TakeMean(const Fields& fields, size_t first, LearnedMean& mean) {
  return fields.size() == first + 3 && absl::SimpleAtoi(fields[first], &mean.count) &&
         absl::SimpleAtod(fields[first + 1], &mean.mean) &&
         absl::SimpleAtod(fields[first + 2], &mean.variance) && std::abs(mean.mean) <= kLargest &&
         mean.variance >= 0 && mean.variance <= kLargest;
}

bool TakeDrive(const Fields& fields, LearnedDrives& drives, LearnedDrive*& drive) {
  std::string name;
  int64_t seconds = 0;
  if (fields.size() != 3 || !absl::CUnescape(fields[1], &name) || name.empty() ||
      !absl::SimpleAtoi(fields[2], &seconds)) {
    return false;
  }
  drive = &drives[name];
  drive->time = absl::FromUnixSeconds(seconds);
  return true;
}

bool TakeLine(const std::string& line, LearnedDrives& drives, LearnedDrive*& drive) {
  const Fields fields = absl::StrSplit(line, '\t');
  if (fields[0] == "drive") return TakeDrive(fields, drives, drive);
  size_t channel = 0;
  if (drive == nullptr || fields.size() < 2 || !absl::SimpleAtoi(fields[1], &channel) ||
      channel >= drive->channels.size()) {
    return false;
  }
  LearnedChannel& learned = drive->channels[channel];
  if (fields[0] == "history") return TakeMean(fields, 2, learned.history);
  if (fields[0] == "difference") return TakeMean(fields, 2, learned.difference);
  size_t bin = 0;
  return fields[0] == "bin" && fields.size() > 2 && absl::SimpleAtoi(fields[2], &bin) &&
         bin < LatencyCurve::kBins && TakeMean(fields, 3, learned.bins[bin]);
}

}  // namespace

std::string EncodeLearned(const LearnedDrives& drives) {
  std::string text = std::string(kHeader) + "\n";
  for (const auto& [name, drive] : drives) {
    METAL_CHECK(drive.time.has_value());
    text += fmt::format("drive\t{}\t{}\n", absl::CEscape(name), absl::ToUnixSeconds(*drive.time));
    for (size_t i = 0; i < drive.channels.size(); ++i) {
      const LearnedChannel& channel = drive.channels[i];
      text += fmt::format("history\t{}\t{}", i, TextOf(channel.history));
      text += fmt::format("difference\t{}\t{}", i, TextOf(channel.difference));
      for (const auto& [bin, mean] : channel.bins) {
        text += fmt::format("bin\t{}\t{}\t{}", i, bin, TextOf(mean));
      }
    }
  }
  return text + kEnd + "\n";
}

absl::StatusOr<LearnedDrives> DecodeLearned(std::string_view text) {
  LearnedDrives drives;
  LearnedDrive* drive = nullptr;
  for (size_t begin = 0, number = 1;; ++number) {
    const size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) {
      return base::Error(absl::StatusCode::kDataLoss, "it ends in line {}", number);
    }
    const std::string line(text.substr(begin, end - begin));
    begin = end + 1;
    if (number > 1 && line == kEnd && begin == text.size()) return drives;
    if (number == 1 ? line != kHeader : !TakeLine(line, drives, drive)) {
      return base::Error(absl::StatusCode::kDataLoss, "line {} makes no sense", number);
    }
  }
}

}  // namespace metal::disk
