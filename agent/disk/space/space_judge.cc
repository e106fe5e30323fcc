#include "agent/disk/space/space_judge.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "agent/base/units.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace metal::disk {
namespace {

using observe::Severity;

constexpr absl::Duration kDay = absl::Hours(24), kWeek = absl::Hours(24 * 7);
constexpr double kWarningEnds = 1.25;  // times the horizon
constexpr uint64_t kTwoWalFiles = 32 * base::kMiB;
constexpr uint64_t kLastInodes = 16;
constexpr absl::Duration kRounded = absl::Minutes(1);

std::string SizeText(uint64_t bytes) { return base::ByteCount{bytes}.ToString(); }

std::string SubjectOf(const SpacePlace& place) {
  const std::string& role = *place.roles.begin();
  return place.device.empty() ? role : place.device + ":" + role;
}

Severity SeverityOf(int level) {
  if (level >= 95) return Severity::kCritical;
  if (level >= 90) return Severity::kError;
  return level >= 75 ? Severity::kWarning : Severity::kInfo;
}

observe::Event MakeEvent(const char* type, Severity severity, const SpacePlace& place,
                         const base::FilesystemRoom& room) {
  observe::Event event;
  event.time = absl::InfinitePast();
  event.type = type;
  event.severity = severity;
  event.subject = SubjectOf(place);
  event.attributes = {{"role", *place.roles.begin()},
                      {"roles", fmt::format("{}", fmt::join(place.roles, ","))},
                      {"mount_point", place.mount_point},
                      {"free_bytes", fmt::format("{}", room.free_bytes)},
                      {"used_percent", fmt::format("{:.1f}", base::UsedPercent(room))}};
  return event;
}

// Half as much more than what makes it tight ends it.
bool IsTight(uint64_t free, uint64_t least, bool was_tight) {
  return free < least + (was_tight ? least / 2 : 0);
}

}  // namespace

Findings SpaceJudge::Observe(const base::FilesystemRoom& room, const SpacePlace& place,
                             absl::Time now) {
  Findings out;
  const Told told{room, place, out};
  if (history_.Add(now, room.used_bytes)) changed_ = true;
  section_.used_percent = base::UsedPercent(room);
  Level(told, bytes_, section_.used_percent, "bytes");
  if (room.inodes > 0) {
    section_.inodes_used_percent = base::InodesUsedPercent(room);
    Level(told, inodes_, *section_.inodes_used_percent, "inodes");
  }
  section_.level_percent = std::max(bytes_.level(), inodes_.level());
  Forecast(told);
  const uint64_t least = base::LeastFree(room, read_only_at_).value;
  const uint64_t least_inodes = base::LeastFreeInodes(room);
  const bool was_tight = section_.tight;
  section_.least_free_bytes = least;
  section_.tight = IsTight(room.free_bytes, least, was_tight) ||
                   IsTight(room.free_inodes, least_inodes, was_tight);
  section_.exhausted = room.free_bytes < std::min(kTwoWalFiles, least / 2) ||
                       room.free_inodes < std::min(kLastInodes, least_inodes / 2);
  Full(told, now);
  return out;
}

void SpaceJudge::Level(const Told& told, SpaceLevel& level, double percent, const char* what) {
  const int before = level.level(), after = level.Observe(percent);
  if (after == before) return;
  changed_ = true;
  const bool rises = after > before;
  observe::Event event =
      MakeEvent(rises ? "disk.space_level" : "disk.space_recovered",
                rises ? SeverityOf(after) : Severity::kInfo, told.place, told.room);
  event.message =
      fmt::format("{} of the file system of {} ({}) used: {:.1f} %, {} and {} inodes free", what,
                  told.place.mount_point, fmt::join(told.place.roles, ", "), percent,
                  SizeText(told.room.free_bytes), told.room.free_inodes);
  if (rises) event.message += ". HINT: metalctl disk health";
  event.attributes["what"] = what;
  event.attributes["level"] = fmt::format("{}", after);
  told.out.events.push_back(std::move(event));
}

void SpaceJudge::Forecast(const Told& told) {
  section_.recent_growth = history_.RecentGrowth();
  section_.long_growth = history_.LongGrowth();
  section_.full_in_recent = TimeUntilFull(told.room.free_bytes, section_.recent_growth);
  section_.full_in_long = TimeUntilFull(told.room.free_bytes, section_.long_growth);
  // What goes up and down every day has been there before.
  const auto peak = history_.FormerPeak();
  const bool known_ground = !warned_day_ && peak && told.room.used_bytes <= *peak;
  Warn(told, warned_day_, known_ground ? std::nullopt : section_.full_in_recent, kDay, "24h");
  Warn(told, warned_week_, section_.full_in_long, kWeek, "1w");
}

void SpaceJudge::Warn(const Told& told, bool& warned, const std::optional<absl::Duration>& left,
                      absl::Duration horizon, const char* name) {
  const bool was = std::exchange(warned, left && *left < horizon * (warned ? kWarningEnds : 1.0));
  if (warned == was) return;
  changed_ = true;
  if (!warned) return;
  observe::Event event =
      MakeEvent("disk.space_forecast", horizon == kDay ? Severity::kError : Severity::kWarning,
                told.place, told.room);
  event.message = fmt::format(
      "the file system of {} ({}) will be full in {} at its growth of the last {}: {} are free. "
      "HINT: free space, or move to a larger disk",
      told.place.mount_point, fmt::join(told.place.roles, ", "),
      absl::FormatDuration(absl::Trunc(*left, kRounded)), horizon == kDay ? "hours" : "days",
      SizeText(told.room.free_bytes));
  event.attributes["horizon"] = name;
  event.attributes["full_in_seconds"] = fmt::format("{}", absl::ToInt64Seconds(*left));
  told.out.events.push_back(std::move(event));
}

// A state: it is told when it begins, for each role, and withdrawn for those that it no longer
// holds for. A role whose disk got another name is told anew.
void SpaceJudge::Full(const Told& told, absl::Time now) {
  const auto give = [&](const std::string& device, const std::string& role, bool clears) {
    Evidence evidence;
    evidence.fault_class = FaultClass::kFull;
    evidence.witness = Witness::kFilesystem;
    evidence.clears = clears;
    evidence.device = device;
    evidence.role = role;
    evidence.text = clears
                        ? fmt::format("{} has room again", told.place.mount_point)
                        : fmt::format("{} has {} and {} inodes free, of which {} are to stay free",
                                      told.place.mount_point, SizeText(told.room.free_bytes),
                                      told.room.free_inodes, SizeText(section_.least_free_bytes));
    evidence.time = now;
    told.out.evidence.push_back(std::move(evidence));
  };
  const std::set<std::string> wanted = section_.tight ? told.place.roles : std::set<std::string>();
  const bool renamed = full_device_ != told.place.device;
  for (const std::string& role : full_roles_) {
    if (renamed || !wanted.contains(role)) give(full_device_, role, true);
  }
  for (const std::string& role : wanted) {
    if (renamed || !full_roles_.contains(role)) give(told.place.device, role, false);
  }
  full_roles_ = wanted;
  full_device_ = told.place.device;
}

std::string SpaceJudge::Encode() const {
  return fmt::format("{} {} {:d} {:d} {}", bytes_.level(), inodes_.level(), warned_day_,
                     warned_week_, history_.Encode());
}

void SpaceJudge::Restore(std::string_view line) {
  int numbers[4] = {};
  for (int& each : numbers) {
    const size_t end = std::min(line.find(' '), line.size());
    const auto [stop, error] = std::from_chars(line.data(), line.data() + end, each);
    if (error != std::errc() || stop != line.data() + end) return;
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  bytes_.Observe(numbers[0]);
  inodes_.Observe(numbers[1]);
  warned_day_ = numbers[2] != 0;
  warned_week_ = numbers[3] != 0;
  history_ = SpaceHistory::Decode(line);
}

}  // namespace metal::disk
