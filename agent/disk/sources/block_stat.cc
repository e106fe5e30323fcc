#include "agent/disk/sources/block_stat.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <utility>

#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr uint64_t kSectorSize = 512;
constexpr size_t kMostNumbers = 17, kLeastNumbers = 11;

// Numbers separated by blanks; ends at the first thing that is none.
size_t ParseNumbers(std::string_view text, std::array<uint64_t, kMostNumbers>& numbers) {
  size_t count = 0;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (count < numbers.size()) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n')) ++at;
    const auto [next, error] = std::from_chars(at, end, numbers.at(count));
    if (error != std::errc()) return count;
    at = next;
    ++count;
  }
  return count;
}

double PerSecond(uint64_t now, uint64_t before, absl::Duration interval) {
  return static_cast<double>(now - before) / absl::ToDoubleSeconds(interval);
}

std::optional<absl::Duration> Latency(uint64_t completions, absl::Duration time) {
  if (completions == 0) return std::nullopt;
  return time / static_cast<double>(completions);
}

// The times are 32-bit counters of milliseconds in older kernels.
bool WentBackwards(const BlockStat& now, const BlockStat& before) {
  return now.reads < before.reads || now.writes < before.writes ||
         now.read_sectors < before.read_sectors || now.write_sectors < before.write_sectors ||
         now.discards < before.discards || now.flushes < before.flushes ||
         now.read_time < before.read_time || now.write_time < before.write_time ||
         now.flush_time < before.flush_time || now.busy < before.busy;
}

}  // namespace

std::optional<BlockStat> ParseBlockStat(std::string_view text) {
  std::array<uint64_t, kMostNumbers> numbers{};
  if (ParseNumbers(text, numbers) < kLeastNumbers) return std::nullopt;
  const auto milliseconds = [&](size_t i) {
    return absl::Milliseconds(static_cast<int64_t>(numbers.at(i) & INT64_MAX));
  };
  BlockStat stat;
  stat.reads = numbers[0];
  stat.read_sectors = numbers[2];
  stat.read_time = milliseconds(3);
  stat.writes = numbers[4];
  stat.write_sectors = numbers[6];
  stat.write_time = milliseconds(7);
  stat.in_flight = numbers[8];
  stat.busy = milliseconds(9);
  stat.discards = numbers[11];
  stat.flushes = numbers[15];
  stat.flush_time = milliseconds(16);
  return stat;
}

std::optional<uint64_t> ParseInflight(std::string_view text) {
  std::array<uint64_t, kMostNumbers> numbers{};
  if (ParseNumbers(text, numbers) < 2) return std::nullopt;
  return numbers[0] + numbers[1];
}

std::optional<Evidence> BlockStatJudge::Observe(const BlockStat& stat,
                                                std::optional<uint64_t> in_flight,
                                                base::MonotonicTime now, absl::Time time) {
  const bool awake = guard_.Awake(now);
  const std::optional<BlockStat> before = std::exchange(last_, stat);
  const absl::Duration interval = now - std::exchange(last_time_, now);
  activity_.reset();
  if (!before || !awake || interval <= absl::ZeroDuration() || WentBackwards(stat, *before)) {
    alive_ = moves_ = now;
    return std::nullopt;
  }
  BlockActivity activity;
  activity.time = now;
  activity.interval = interval;
  activity.in_flight = in_flight.value_or(stat.in_flight);
  activity.reads_per_second = PerSecond(stat.reads, before->reads, interval);
  activity.writes_per_second = PerSecond(stat.writes, before->writes, interval);
  activity.flushes_per_second = PerSecond(stat.flushes, before->flushes, interval);
  activity.read_bytes_per_second =
      PerSecond(stat.read_sectors, before->read_sectors, interval) * kSectorSize;
  activity.write_bytes_per_second =
      PerSecond(stat.write_sectors, before->write_sectors, interval) * kSectorSize;
  activity.read_latency = Latency(stat.reads - before->reads, stat.read_time - before->read_time);
  activity.write_latency =
      Latency(stat.writes - before->writes, stat.write_time - before->write_time);
  activity.flush_latency =
      Latency(stat.flushes - before->flushes, stat.flush_time - before->flush_time);
  activity.busy = std::min(1.0, absl::FDivDuration(stat.busy - before->busy, interval));
  if (activity.in_flight == 0 || stat.completions() != before->completions()) alive_ = now;
  activity.frozen = now - alive_;
  // By Little's law the last of those in flight waits this long.
  const double rate = PerSecond(stat.completions(), before->completions(), interval);
  const double wait_s = static_cast<double>(activity.in_flight) / std::max(rate, 1e-9);
  if (absl::Seconds(wait_s) < stalled_after_) moves_ = now;
  activity.crawling = now - moves_;
  activity.completions_per_second = rate;
  activity_ = activity;
  return Stalled(activity, time);
}

std::optional<Evidence> BlockStatJudge::Stalled(const BlockActivity& activity, absl::Time time) {
  Evidence evidence;
  evidence.fault_class = FaultClass::kStalled;
  evidence.witness = Witness::kSysfs;
  evidence.device = disk_;
  evidence.time = time;
  const absl::Duration standing = std::max(activity.frozen, activity.crawling);
  if (standing == absl::ZeroDuration()) {
    if (std::exchange(told_, absl::ZeroDuration()) == absl::ZeroDuration()) return std::nullopt;
    evidence.clears = true;
    evidence.text = fmt::format("{} completes requests again", disk_);
    return evidence;
  }
  if (standing < told_ + stalled_after_) return std::nullopt;
  told_ = standing;
  evidence.text =
      activity.frozen > absl::ZeroDuration()
          ? fmt::format("{} completed none of {} requests in flight for {:.1f} s", disk_,
                        activity.in_flight, absl::ToDoubleSeconds(activity.frozen))
          : fmt::format("{} has completed {:.1f} of {} requests in flight a second for {:.1f} s",
                        disk_, activity.completions_per_second, activity.in_flight,
                        absl::ToDoubleSeconds(standing));
  return evidence;
}

}  // namespace metal::disk
