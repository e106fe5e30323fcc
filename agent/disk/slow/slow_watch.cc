#include "agent/disk/slow/slow_watch.h"

#include <algorithm>

#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr absl::Duration kPeerFresh = absl::Seconds(10);

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
  if (found != disks_.end() && found->second.serial != second.serial) {
    disks_.erase(found);
    found = disks_.end();
  }
  if (found == disks_.end()) {
    found = disks_.emplace(second.disk, Watched{second.serial, SlowDetector(limits_)}).first;
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
  std::erase_if(disks_, [&](const auto& each) { return !disks.contains(each.first); });
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
