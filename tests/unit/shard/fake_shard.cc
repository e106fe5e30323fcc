#include "tests/unit/shard/fake_shard.h"

#include <algorithm>
#include <utility>

#include "agent/pg/durability.h"

namespace metal::shard {

bool Has(const WalPosition& node, const WalPosition& commit) {
  const Ancestry ancestry = Compare(commit, node);
  return ancestry == Ancestry::kSame || ancestry == Ancestry::kBehind;
}

FakeShard::FakeShard(ShardConfig config) : config_(std::move(config)) {
  for (size_t i = 0; i < config_.nodes.size(); ++i) {
    nodes_.push_back(std::make_unique<FakeNode>(*this, i));
    if (i > 0) nodes_[i]->source = 0;
  }
  FakeNode& primary = *nodes_[0];
  primary.read_write = true;
  primary.wanted = NodeRole::kPrimary;
  std::vector<std::string> standbys;
  for (size_t i = 1; i < nodes_.size(); ++i) {
    standbys.push_back(nodes_[i]->Id());
    primary.slots.insert(SlotName(nodes_[i]->Id()));
  }
  primary.synchronous = config_.policy.Setting(standbys);
  for (auto& node : nodes_) node->wal.durability = {primary.RuleInForce()};
}

void FakeShard::AtOnce(const std::vector<NodeCall>& calls, const Enough& enough) {
  std::vector<bool> ended(calls.size());
  for (const bool last : {false, true}) {
    for (size_t i = 0; i < calls.size(); ++i) {
      const FakeNode& node = *nodes_[calls[i].node];
      if ((node.hangs || node.answers_last) != last) continue;
      // Not waited for; the agent goes on with it.
      abandoned_ = last && enough.test && enough.test(ended);
      calls[i].run();
      ended[i] = true;
    }
  }
}

bool FakeShard::Count(bool* after, bool* halfway) {
  *after = *halfway = false;
  if (dead_) return false;
  ++calls_;
  if (calls_ != kill_at_) return true;
  dead_ = true;
  if (death_ == Death::kBefore) return false;
  *halfway = death_ == Death::kHalfway;
  *after = true;
  return true;
}

bool FakeShard::Streams(const FakeNode& node) const {
  if (!node.server_up || node.hangs || node.empty || node.read_write || !node.source) return false;
  if (node.missed_wal || node.cut_off) return false;
  const FakeNode& source = *nodes_[*node.source];
  return source.server_up && !source.hangs && !source.empty &&
         (node.without_slot || source.slots.contains(SlotName(node.Id()))) &&
         Has(source.wal, node.wal);
}

bool FakeShard::Recorded(const FakeNode& primary) const {
  std::set<std::string> nodes = {primary.Id()};
  for (const auto& node : nodes_) {
    if (node->source == primary.index_ && Streams(*node)) nodes.insert(node->Id());
  }
  pg::DurabilityRecord record;
  for (const DurabilityRule& rule : primary.wal.durability) {
    record.push_back({rule.copies, rule.members});
  }
  return pg::Satisfied(record, nodes);
}

void FakeShard::Flow() {
  for (size_t round = 0; round < nodes_.size(); ++round) {  // through cascades
    for (auto& node : nodes_) {
      if (Streams(*node)) node->wal = nodes_[*node->source]->wal;
    }
  }
}

void FakeShard::Tick() {
  int acknowledging = 0;
  for (auto& node : nodes_) {
    if (!node->IsPrimary() || node->hangs) continue;
    node->KeepRecord();
    node->wal.received.value += 1;
    int copies = 0;
    for (auto& other : nodes_) {
      if (other->source != node->index_ || !Streams(*other)) continue;
      other->wal = node->wal;
      if (node->synchronous.find('"' + other->Id() + '"') != std::string::npos) ++copies;
    }
    const int needed = pg::ParsePolicy(node->synchronous)->count;
    if (copies < needed) continue;
    ++acknowledging;
    ledger_.push_back(node->wal);
  }
  if (acknowledging > 1) two_primaries_ = true;
  Flow();
}

int FakeShard::Lost(size_t node) const {
  return static_cast<int>(std::count_if(ledger_.begin(), ledger_.end(), [&](const auto& commit) {
    return !Has(nodes_[node]->wal, commit);
  }));
}

std::vector<NodeView> FakeShard::Views() {
  std::vector<NodeView> views;
  for (auto& node : nodes_) {
    auto view = node->GetStatus(absl::Seconds(1));
    views.push_back(view.ok() ? *view : UnreachableView(node->Id(), "no agent answers"));
  }
  return views;
}

std::vector<std::string> FakeShard::Findings() {
  std::vector<std::string> names;
  for (const Finding& each : Analyse(config_, Views())) {
    names.push_back(std::string(each.kind->name) + (each.node.empty() ? "" : " " + each.node));
  }
  return names;
}

}  // namespace metal::shard
