#include "agent/backup/copy_pace.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "agent/observe/emit.h"

namespace metal::backup {
namespace {

// One late probe is chance: so many decide. Their upper quartile counts, since reads may be late
// where writes are not.
constexpr size_t kFewest = 6, kMost = 8;
constexpr double kSlower = 0.7, kFaster = 1.2;
// Copies that need less than this part of what they may have are not held back by it.
constexpr double kUnused = 0.5;
constexpr int kUnusedLooks = 5;  // in a row: files may be small, a repository slow
// Below this part of latency_max copies may read faster; between the two nothing changes.
constexpr double kRoom = 0.8;
// Segments that wait for the archiver while it keeps up.
constexpr uint64_t kArchiverKeepsUp = 4;
constexpr double kMiB = 1 << 20;
constexpr absl::Duration kInterval = absl::Milliseconds(900);
constexpr absl::Duration kCools =
    absl::Seconds(30);  // what it takes a drive to show that it is spared
constexpr absl::Duration kOver = absl::Seconds(5);  // without a byte: nobody copies

absl::Duration UpperQuartile(const std::deque<absl::Duration>& latencies) {
  std::vector<absl::Duration> sorted(latencies.begin(), latencies.end());
  std::ranges::sort(sorted);
  return sorted[sorted.size() - 1 - sorted.size() / 4];
}

uint64_t Scaled(uint64_t rate, double factor) {
  return static_cast<uint64_t>(static_cast<double>(rate) * factor);
}

}  // namespace

CopyPace::CopyPace(CopyPaceOptions options, base::Clock& clock, observe::EventLog& events)
    : options_(options),
      clock_(clock),
      events_(events),
      throttle_(options.rate_limit, clock),
      rate_(options.rate_limit),
      looked_(clock.Monotonic()),
      copied_(clock.Monotonic()) {}

uint64_t CopyPace::rate() const {
  base::MutexLock lock(mutex_);
  return rate_;
}

void CopyPace::Observe(std::span<const absl::Duration> latencies) {
  if (!WatchesLatency()) return;
  base::MutexLock lock(mutex_);
  if (std::exchange(of_before_, false)) return;
  latencies_.insert(latencies_.end(), latencies.begin(), latencies.end());
  while (latencies_.size() > kMost) latencies_.pop_front();
}

void CopyPace::Adjust(uint64_t segments_waiting, bool hot) {
  Seen seen;
  uint64_t before = 0, now = 0;
  {
    base::MutexLock lock(mutex_);
    if (!hot) spared_.reset();
    const bool held_back = rate_ != options_.rate_limit;
    if (!WatchesLatency() && !hot && !held_back) return;
    const auto looked = Look(segments_waiting, hot);
    if (!looked) return;
    seen = *looked;
    before = rate_;
    now = rate_ = Choose(seen);
    if (now == before) return;
    throttle_.SetRate(now);
    // Those to come are of the new rate, but for what the next call brings.
    latencies_.clear();
    of_before_ = true;
  }
  Tell(before, now, seen);
}

std::optional<CopyPace::Seen> CopyPace::Look(uint64_t segments_waiting, bool hot) {
  const base::MonotonicTime now = clock_.Monotonic();
  if (now - looked_ < kInterval) return std::nullopt;
  if (WatchesLatency() && !hot && latencies_.size() < kFewest) return std::nullopt;
  const double seconds = absl::ToDoubleSeconds(now - looked_);
  const uint64_t bytes = throttle_.booked() - booked_;
  if (bytes > 0) copied_ = now;
  looked_ = now;
  // A copy that waits for something is one still.
  if (bytes == 0 && now - copied_ < kOver) return std::nullopt;
  Seen seen;
  if (latencies_.size() >= kFewest) seen.latency = UpperQuartile(latencies_);
  seen.hot = hot;
  seen.archive_grows = WatchesLatency() && segments_waiting > kArchiverKeepsUp &&
                       segments_waiting > segments_waiting_;
  seen.bytes_per_second = static_cast<uint64_t>(static_cast<double>(bytes) / seconds);
  const bool unused = seen.bytes_per_second < Scaled(rate_, kUnused);
  unused_ = unused ? unused_ + 1 : 0;
  booked_ += bytes;
  segments_waiting_ = segments_waiting;
  return seen;
}

uint64_t CopyPace::Choose(const Seen& seen) {
  const uint64_t limit = options_.rate_limit;
  // Nobody copies: what is slow now is not to be held against the next one.
  if (seen.bytes_per_second == 0) return limit;
  const base::MonotonicTime now = clock_.Monotonic();
  const bool spare = seen.hot && (!spared_ || now - *spared_ >= kCools);
  if (spare) spared_ = now;
  const bool late = WatchesLatency() && seen.latency > options_.latency_max;
  if (late || seen.archive_grows || spare) {
    const uint64_t present = rate_ == 0 ? seen.bytes_per_second : rate_;
    // A lull is no reason to spare a hot drive more.
    const uint64_t of = spare && !late ? present : std::min(present, seen.bytes_per_second);
    const uint64_t slower = std::max(Scaled(of, kSlower), options_.rate_least);
    return rate_ == 0 ? slower : std::min(slower, rate_);
  }
  if (seen.hot || rate_ == limit) return rate_;
  if (WatchesLatency() && seen.latency > kRoom * options_.latency_max) return rate_;
  const uint64_t faster = Scaled(rate_, kFaster);
  if (limit != 0 && faster >= limit) return limit;
  // A limit that they stay far below is none.
  return unused_ >= kUnusedLooks ? limit : faster;
}

void CopyPace::Tell(uint64_t before, uint64_t now, const Seen& seen) {
  if (now == options_.rate_limit) {
    observe::Emit(events_, observe::Severity::kInfo, "backup.let_go", "postgres",
                  "backups and clones read as fast as they did before");
    return;
  }
  if (before != options_.rate_limit) return;  // it was told when it began
  const std::string why =
      seen.hot ? std::string("a drive of the database is too hot")
      : seen.archive_grows
          ? std::string("more and more WAL waits for the archiver")
          : fmt::format("probes of the data disk take {}, backup.latency_max is {}",
                        absl::FormatDuration(seen.latency),
                        absl::FormatDuration(options_.latency_max));
  observe::Emit(events_, observe::Severity::kInfo, "backup.slowed", "postgres",
                fmt::format("backups and clones are to read {:.0f} MiB/s, after {:.0f}: {}",
                            static_cast<double>(now) / kMiB,
                            static_cast<double>(seen.bytes_per_second) / kMiB, why),
                {{"bytes_per_second", fmt::format("{}", now)}});
}

}  // namespace metal::backup
