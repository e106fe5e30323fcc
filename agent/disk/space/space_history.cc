#include "agent/disk/space/space_history.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr int64_t kIntervalSeconds = 600;
constexpr int64_t kHour = 3600 / kIntervalSeconds, kDay = 24 * kHour, kWeek = 7 * kDay;
constexpr int64_t kRecent = 8 * kHour, kRecentLeast = 2 * kHour;
constexpr int64_t kParts = 8;
constexpr size_t kFewestParts = 6;  // that something was seen in
constexpr absl::Duration kFarAway = absl::Hours(24 * 3650);

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// "number:bytes"; nullopt for anything else.
std::optional<std::pair<int64_t, uint64_t>> ParsePair(std::string_view text) {
  std::pair<int64_t, uint64_t> pair;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, pair.first);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != ':') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, pair.second);
  if (second.ec != std::errc() || second.ptr != end) return std::nullopt;
  return pair;
}

}  // namespace

bool SpaceHistory::Add(absl::Time time, uint64_t used_bytes) {
  const int64_t number = absl::ToUnixSeconds(time) / kIntervalSeconds;
  while (!ended_.empty() && ended_.back().first >= number) ended_.pop_back();
  if (open_ && open_->first == number) {
    open_->second = std::min(open_->second, used_bytes);
    return false;
  }
  const bool has_ended = open_ && open_->first < number;
  if (has_ended) ended_.push_back(*open_);
  open_ = {number, used_bytes};
  while (!ended_.empty() && ended_.front().first < number - kWeek) ended_.pop_front();
  return has_ended;
}

std::optional<double> SpaceHistory::Growth(int64_t window, int64_t least) const {
  if (ended_.empty()) return std::nullopt;
  const int64_t last = ended_.back().first;
  const auto begin = std::ranges::find_if(
      ended_, [&](const Interval& each) { return each.first > last - window; });
  const int64_t first = begin->first, span = last - first + 1;
  if (span < least) return std::nullopt;
  struct Part {
    std::vector<double> times, levels;
  };
  std::vector<Part> parts(kParts);
  for (auto each = begin; each != ended_.end(); ++each) {
    Part& part = parts[static_cast<size_t>((each->first - first) * kParts / span)];
    part.times.push_back(static_cast<double>(each->first * kIntervalSeconds));
    part.levels.push_back(static_cast<double>(each->second));
  }
  std::erase_if(parts, [](const Part& part) { return part.times.empty(); });
  if (parts.size() < kFewestParts) return std::nullopt;
  std::vector<double> steps;
  for (size_t i = 1; i < parts.size(); ++i) {
    steps.push_back((Median(parts[i].levels) - Median(parts[i - 1].levels)) /
                    (Median(parts[i].times) - Median(parts[i - 1].times)));
  }
  return Median(std::move(steps));
}

std::optional<double> SpaceHistory::RecentGrowth() const { return Growth(kRecent, kRecentLeast); }
std::optional<double> SpaceHistory::LongGrowth() const { return Growth(kWeek, kDay); }

std::optional<uint64_t> SpaceHistory::FormerPeak() const {
  std::optional<uint64_t> peak;
  for (const auto& [number, used] : ended_) {
    if (number <= ended_.back().first - kRecent) peak = std::max(peak.value_or(0), used);
  }
  return peak;
}

std::string SpaceHistory::Encode() const {
  std::string text;
  for (const auto& [number, used] : ended_) {
    text += fmt::format("{}{}:{}", text.empty() ? "" : " ", number, used);
  }
  return text;
}

SpaceHistory SpaceHistory::Decode(std::string_view text) {
  SpaceHistory history;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    const auto interval = ParsePair(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    const bool in_order =
        interval && (history.ended_.empty() || history.ended_.back().first < interval->first);
    if (!in_order || history.ended_.size() > kWeek) return {};
    history.ended_.push_back(*interval);
  }
  return history;
}

std::optional<absl::Duration> TimeUntilFull(uint64_t free_bytes,
                                            const std::optional<double>& growth) {
  if (!growth || *growth <= 0) return std::nullopt;
  const absl::Duration left = absl::Seconds(static_cast<double>(free_bytes) / *growth);
  return left < kFarAway ? std::optional(left) : std::nullopt;
}

}  // namespace metal::disk
