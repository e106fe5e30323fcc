#include "agent/node/rewind/timeline_history.h"

#include <algorithm>
#include <charconv>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::node {

namespace {

constexpr std::string_view kBlanks = " \t\r";

// The next word of `line`, which it is taken from.
std::string_view TakeWord(std::string_view& line) {
  const size_t start = line.find_first_not_of(kBlanks);
  if (start == std::string_view::npos) {
    line = {};
    return {};
  }
  line.remove_prefix(start);
  const size_t end = line.find_first_of(kBlanks);
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(end == std::string_view::npos ? line.size() : end);
  return word;
}

std::optional<base::TimelineId> ParseTimeline(std::string_view word) {
  base::TimelineId timeline = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), timeline);
  if (error != std::errc() || end != word.data() + word.size() || timeline == 0) {
    return std::nullopt;
  }
  return timeline;
}

}  // namespace

absl::StatusOr<std::vector<TimelineSwitch>> ParseTimelineHistory(std::string_view text) {
  std::vector<TimelineSwitch> history;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::string_view first = TakeWord(line);
    if (first.empty() || first.front() == '#') continue;
    const auto timeline = ParseTimeline(first);
    const auto lsn = base::Lsn::Parse(TakeWord(line));
    if (!timeline || !lsn) {
      return base::Error(absl::StatusCode::kDataLoss, "timeline history: line {} is damaged",
                         number);
    }
    if (!history.empty() && *timeline <= history.back().timeline) {
      return base::Error(absl::StatusCode::kDataLoss,
                         "timeline history: line {}: timeline {} does not follow {}", number,
                         *timeline, history.back().timeline);
    }
    history.push_back({*timeline, *lsn});
  }
  return history;
}

absl::StatusOr<std::vector<TimelineSwitch>> ReadTimelineHistory(const std::string& data_dir,
                                                                base::TimelineId timeline) {
  if (timeline <= 1) return std::vector<TimelineSwitch>();
  const std::string path =
      base::JoinPath(base::JoinPath(data_dir, "pg_wal"), fmt::format("{:08X}.history", timeline));
  METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path));
  auto history = ParseTimelineHistory(text);
  if (!history.ok()) return base::Annotate(history.status(), path);
  return history;
}

base::TimelineId NewestTimelineAt(const std::vector<std::string>& wal_files, base::Lsn lsn,
                                  uint64_t wal_segment_bytes) {
  base::TimelineId newest = 0;
  if (!lsn.valid()) return newest;
  const uint64_t wanted = (lsn.value - 1) / wal_segment_bytes;
  for (const std::string& name : wal_files) {
    const auto segment = base::ParseWalFileName(name, wal_segment_bytes);
    if (segment && segment->start.value / wal_segment_bytes == wanted) {
      newest = std::max(newest, segment->timeline);
    }
  }
  return newest;
}

void StepBackToReceived(WalPosition& position) {
  while (!position.history.empty() && position.received <= position.history.back().switch_lsn) {
    position.timeline = position.history.back().timeline;
    position.history.pop_back();
  }
}

std::string EncodeHistory(const std::vector<TimelineSwitch>& history) {
  std::string text;
  for (const TimelineSwitch& entry : history) {
    if (!text.empty()) text += ",";
    text += fmt::format("{}@{}", entry.timeline, entry.switch_lsn.ToString());
  }
  return text;
}

std::vector<TimelineSwitch> DecodeHistory(std::string_view text) {
  std::vector<TimelineSwitch> history;
  while (!text.empty()) {
    const size_t end = text.find(',');
    const std::string_view entry = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const size_t at = entry.find('@');
    if (at == std::string_view::npos) continue;
    const auto timeline = ParseTimeline(entry.substr(0, at));
    const auto lsn = base::Lsn::Parse(entry.substr(at + 1));
    if (timeline && lsn) history.push_back({*timeline, *lsn});
  }
  return history;
}

}  // namespace metal::node
