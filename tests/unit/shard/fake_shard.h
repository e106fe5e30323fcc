// A shard in memory with the behaviour that procedures rely on: terms and their holders, WAL on
// timelines that fork at promotions, streaming through slots, synchronous commits. A client commits
// on whichever node accepts writes before every call, and remembers what was acknowledged. The
// operator can die at any call: from then on nothing that it asks for happens.
//
// Threading: one thread; calls "at once" are made one after the other, those that hang last.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/harness/simulated_clock.h"
#include "tests/unit/shard/healthy_shard.h"
#include "tools/metalctl/shard/node_calls.h"

namespace metal::shard {

class FakeShard;

// The node has the WAL of that commit.
bool Has(const WalPosition& node, const WalPosition& commit);

class FakeNode : public NodeCalls {
 public:
  FakeNode(FakeShard& shard, size_t index) : shard_(shard), index_(index) {}

  absl::StatusOr<NodeView> GetStatus(absl::Duration patience) override;
  absl::StatusOr<TermAnswer> BeginTerm(const TermHolder& holder, absl::Duration patience) override;
  absl::StatusOr<WalPoint> Promote(const TermHolder& holder) override;
  absl::Status PrepareDemote(const TermHolder& holder) override;
  absl::StatusOr<WalPoint> Demote(const TermHolder& holder) override;
  absl::Status UndoDemote(const TermHolder& holder) override;
  absl::Status FollowPrimary(const TermHolder& holder, const HostPort& primary,
                             FollowBy by) override;
  absl::Status WaitForLsn(const WalPoint& point, absl::Duration patience) override;
  absl::StatusOr<WalPoint> EndOfWal() override;
  absl::Status SetSynchronousStandbys(const TermHolder& holder,
                                      const SynchronousChange& change) override;
  absl::Status ReconcileSlots(const TermHolder& holder,
                              const std::vector<std::string>& slots) override;
  absl::Status StartPostgres() override;
  absl::Status Rewind(const TermHolder& holder, const HostPort& primary) override;
  absl::Status TryRewind(const TermHolder& holder, const HostPort& primary) override;
  absl::Status InitDataDirectory(const InitOptions& options) override;
  absl::Status Clone(const TermHolder& holder, const CloneSource& source) override;
  absl::Status Unfence(const TermHolder& holder) override;
  absl::Status HoldTraffic(const TermHolder& holder) override;
  absl::Status ReleaseTraffic(const TermHolder& holder, const HostPort& primary) override;

  // What a test sets and looks at.
  std::function<void(NodeView&)> says;  // what its status says instead
  bool reachable = true;                // its agent
  bool hangs = false;                   // its server: changes of role get no answer in time
  bool answers_last = false;            // to a new term, when enough others have
  bool server_up = true;
  int starts_for = 0;          // looks at the node during which its server only starts
  bool replay_paused = false;  // no copy of it can begin
  int unchecked_follows = 0;   // orders to follow that are obeyed before its WAL is known
  bool empty = false;
  bool read_write = false;  // while the server is up
  bool fenced = false;
  std::string fence_reason;
  bool disk_sick = false;       // as its probes see it
  bool disk_condemned = false;  // a fatal fault is confirmed
  bool refuses_promotion = false;
  uint64_t cloned_at = 0;             // bytes per second, as the last Clone was told
  std::optional<size_t> copied_from;  // by the last Clone
  bool denies_terms = false;          // its role table does
  bool lags = false;                  // what the primary sees of it
  bool disk_full = false;             // it cannot start
  bool missed_wal = false;            // of its source, which has removed it: a clone helps
  bool flickers = false;              // while it has missed WAL, its receiver says that it streams
  bool cut_off = false;               // no stream reaches it
  std::string refuses_rewind;         // the reason; a clone helps
  TermHolder stored{4, "metalctl:before"};
  NodeRole wanted = NodeRole::kStandby;
  WalPosition wal{3, {0x5000}, {{1, {0x1000}}, {2, {0x2000}}}, {{4, 3, {0x2010}, "a"}}};
  std::optional<size_t> source;
  bool without_slot = false;  // of the source
  std::set<std::string> slots;
  std::string synchronous;
  std::optional<uint64_t> system_id;  // of another database
  absl::Duration shutdown_takes;
  uint64_t status_behind = 0;  // bytes of WAL that its status does not know yet
  bool has_door = true, door_held = false, door_refuses = false;
  std::function<void()> before_slots, before_demote;  // something overtakes that call, once
  HostPort door{"a.example", 5432};
  uint64_t door_term = 4;

 private:
  friend class FakeShard;
  std::string Id() const { return std::string(1, static_cast<char>('a' + index_)); }
  // False when the operator is dead or the node cannot be reached: `error` says so.
  bool Reached(absl::Status* error);
  absl::Status CheckHolder(const TermHolder& holder) const;    // exactly the stored term
  absl::Status CheckNotStale(const TermHolder& holder) const;  // not below it
  void Store(const TermHolder& holder, NodeRole role);
  bool IsPrimary() const { return server_up && !empty && read_write; }
  void BecomeStandby();  // with a shutdown checkpoint that the standbys receive
  WalPoint BecomePrimary();
  DurabilityRule RuleInForce() const;
  void Record(const DurabilityRule& rule);
  void KeepRecord();

  FakeShard& shard_;
  const size_t index_;
  std::optional<TermHolder> demoted_by_;  // until it is told whom to follow
};

// How a call fails when the operator dies at it.
enum class Death { kBefore, kAfter, kHalfway };  // kHalfway: a promotion is ordered and not made

class FakeShard : public ShardCalls {
 public:
  // a is the primary of term 4, the others stream from it.
  explicit FakeShard(ShardConfig config);

  NodeCalls& node(size_t index) override { return *nodes_[index]; }
  void AtOnce(const std::vector<NodeCall>& calls, const Enough& enough) override;
  base::Clock& clock() override { return clock_; }

  FakeNode& at(size_t index) { return *nodes_[index]; }
  size_t size() const { return nodes_.size(); }
  const ShardConfig& config() const { return config_; }

  // The operator dies at its call number `call`, from 1.
  void KillAt(int call, Death death) {
    kill_at_ = call;
    death_ = death;
  }
  void Revive() { kill_at_ = 0, dead_ = false, calls_ = 0; }
  bool dead() const { return dead_; }
  int calls() const { return calls_; }

  // One more commit by the clients on every node that accepts writes; WAL flows.
  void Tick();
  // Commits that were acknowledged and that `node` does not have.
  int Lost(size_t node) const;
  // Nodes that acknowledged a commit at the same moment, ever.
  bool two_primaries() const { return two_primaries_; }
  // Nothing was acknowledged: a shard that is yet to be made.
  void ForgetAcknowledged() { ledger_.clear(); }
  size_t acknowledged() const { return ledger_.size(); }
  std::vector<NodeView> Views();
  // Names of findings, with their nodes.
  std::vector<std::string> Findings();

 private:
  friend class FakeNode;
  // Counts a call; false when it must not happen. `after`: it happens, and its answer is lost.
  bool Count(bool* after, bool* halfway);
  bool Streams(const FakeNode& node) const;
  // Of the primary's record: that nodes enough have it.
  bool Recorded(const FakeNode& primary) const;
  void Flow();

  const ShardConfig config_;
  testing::SimulatedClock clock_;
  std::vector<std::unique_ptr<FakeNode>> nodes_;
  std::vector<WalPosition> ledger_;
  int kill_at_ = 0, calls_ = 0;
  Death death_ = Death::kBefore;
  bool dead_ = false, answer_lost_ = false, halfway_ = false, two_primaries_ = false,
       abandoned_ = false;
};

}  // namespace metal::shard
