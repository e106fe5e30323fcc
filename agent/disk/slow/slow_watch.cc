#include "agent/disk/slow/slow_watch.h"

#include <algorithm>

#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr absl::Duration kPeerFresh = absl::Seconds(10);
constexpr absl::Duration kKept = absl::Hours(30 * 24);  // what a drive taught that is gone

// Of few values the lower middle one.
absl::Duration Median(std::vector<absl::Duration>& values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

absl::Duration Percentile99(std::vector<absl::Duration>& values) {
  const auto place = values.begin() + static_cast<ptrdiff_t>((values.size() * 99 - 1) / 100);
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

}  // namespace

void SlowWatch::Observe(DiskSecond second, base::MonotonicTime now) {
  if (second.latencies.empty()) return;
  base::MutexLock lock(mutex_);
  auto found = disks_.find(second.disk);
  if (found != disks_.end() && found->second.drive != second.drive) {
    Remember(found->second);
    disks_.erase(found);
    found = disks_.end();
  }
  if (found == disks_.end()) {
    found = disks_.emplace(second.disk, Watched{second.drive, SlowDetector(limits_)}).first;
    RecallFor(found->second);
  }
  SlowSample sample;
  sample.time = now;
  sample.median = Median(second.latencies);
  sample.p99 = Percentile99(second.latencies);
  sample.bytes_per_second = second.bytes_per_second;
  found->second.detector.Observe(sample, PeersOf(second.roles, now));
  Tell(second.disk, found->second);
}

void SlowWatch::SetPeers(const std::vector<PeerExcess>& peers, base::MonotonicTime now) {
  base::MutexLock lock(mutex_);
  std::erase_if(peers_, [now](const auto& each) { return now - each.second.at > kPeerFresh; });
  for (const PeerExcess& each : peers) peers_[{each.role, each.node}] = {each.excess, now};
}

void SlowWatch::KeepOnly(const std::set<std::string>& disks) {
  base::MutexLock lock(mutex_);
  for (const auto& [name, watched] : disks_) {
    if (!disks.contains(name)) Remember(watched);
  }
  std::erase_if(disks_, [&](const auto& each) { return !disks.contains(each.first); });
}

bool SlowWatch::IsNameless(const Watched& watched) const {
  return watched.drive.empty() || std::ranges::count_if(disks_, [&](const auto& each) {
                                    return each.second.drive == watched.drive;
                                  }) > 1;
}

void SlowWatch::Remember(const Watched& watched) {
  if (IsNameless(watched)) return;
  LearnedDrive learned = watched.detector.Learned();
  if (learned.channels[0].history.count > 0) learned_[watched.drive] = std::move(learned);
}

void SlowWatch::RecallFor(Watched& watched) {
  const auto found = learned_.find(watched.drive);
  if (found != learned_.end() && !IsNameless(watched)) watched.detector.Recall(found->second);
}

LearnedDrives SlowWatch::Learned(absl::Time now) {
  base::MutexLock lock(mutex_);
  for (const auto& [name, watched] : disks_) Remember(watched);
  for (auto& [name, drive] : learned_) drive.time = drive.time.value_or(now);
  std::erase_if(learned_, [now](const auto& each) { return now - *each.second.time > kKept; });
  return learned_;
}

void SlowWatch::Recall(const LearnedDrives& learned) {
  base::MutexLock lock(mutex_);
  const auto amount = [](const LearnedDrive& drive) { return drive.channels[0].history.count; };
  for (const auto& [name, drive] : learned) {
    LearnedDrive& mine = learned_[name];
    if (amount(mine) < amount(drive)) mine = drive;
  }
  for (auto& [name, watched] : disks_) RecallFor(watched);
}

void SlowWatch::Forget(const std::string& disk) {
  base::MutexLock lock(mutex_);
  const auto found = disks_.find(disk);
  if (found == disks_.end()) return;
  Watched& watched = found->second;
  learned_.erase(watched.drive);
  watched.detector.Forget();
  Tell(disk, watched);
}

std::vector<LatencyExcess> SlowWatch::PeersOf(const std::set<std::string>& roles,
                                              base::MonotonicTime now) {
  std::map<std::string, LatencyExcess> by_node;  // a node counts once
  for (const auto& [key, peer] : peers_) {
    if (roles.contains(key.first) && now - peer.at <= kPeerFresh) {
      by_node.try_emplace(key.second, peer.excess);
    }
  }
  std::vector<LatencyExcess> peers;
  for (const auto& [node, excess] : by_node) peers.push_back(excess);
  return peers;
}

void SlowWatch::Tell(const std::string& disk, Watched& watched) {
  const SlowVerdict& verdict = watched.detector.verdict();
  const bool slow = verdict.state == SlowState::kSlow;
  const bool by_peers = slow && (verdict.witnesses & kPeerWitness) != 0;
  TellAs(Witness::kSlowDetector, slow, watched.told, disk, verdict);
  // What they confirmed once stays confirmed while the drive is slow: they may fall silent.
  TellAs(Witness::kPeers, slow && (by_peers || watched.told_peers), watched.told_peers, disk,
         verdict);
}

void SlowWatch::TellAs(Witness witness, bool wanted, bool& told, const std::string& disk,
                       const SlowVerdict& verdict) {
  if (wanted == told) return;
  told = wanted;
  Evidence evidence;
  evidence.fault_class = FaultClass::kSlow;
  evidence.witness = witness;
  evidence.clears = !wanted;
  evidence.device = disk;
  evidence.text =
      fmt::format("{} answers {:.1f} times slower than {}", disk, verdict.factor,
                  witness == Witness::kPeers ? "the shard's other members at the same work"
                                             : "it did at this load");
  sink_(std::move(evidence));
}

std::optional<observe::SlownessSection> SlowWatch::SectionOf(const std::string& disk) const {
  base::MutexLock lock(mutex_);
  const auto found = disks_.find(disk);
  if (found == disks_.end()) return std::nullopt;
  const SlowVerdict& verdict = found->second.detector.verdict();
  observe::SlownessSection section;
  section.state = std::string(SlowStateName(verdict.state));
  section.factor = verdict.factor;
  section.confidence = verdict.confidence;
  section.learning = verdict.learning;
  if (const auto excess = found->second.detector.excess()) {
    section.median_excess = excess->median;
    section.p99_excess = excess->p99;
  }
  return section;
}

}  // namespace metal::disk
