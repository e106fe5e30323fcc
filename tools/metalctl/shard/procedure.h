// The procedures of a shard: planned and emergency change of the primary, and the repair of
// whatever an earlier run, or anything else, left behind. Each is a list of named steps, each safe
// to repeat.
//
// What if metalctl dies here? Nothing is kept between runs: a run reads all nodes first and derives
// what is left to do. Until a promotion is ordered no node is the primary of the new term, and a
// repeated run elects one (for certain the old primary or the candidate: both are frozen with all
// WAL). From then on the term belongs to the promoted node, and what is left is to make the others
// follow it. Every run begins terms under a name of its own ("metalctl:5f03…"), so of two that run
// at once a node obeys one.
//
// Threading: one thread; calls to several nodes are made at once (node_calls.h), and the steps of
// each end in a thread of their own.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/mutex.h"
#include "tools/metalctl/shard/node_calls.h"
#include "tools/metalctl/shard/proof.h"
#include "tools/metalctl/shard/shard_config.h"
#include "tools/metalctl/shard/step_log.h"
#include "tools/metalctl/shard/synchronous_set.h"

namespace metal::shard {

struct ChangeOptions {
  std::optional<size_t> to;       // who is to lead; nullopt: the best
  bool accept_data_loss = false;  // lead although acknowledged commits may be on missing nodes
};

class Procedure {
 public:
  // `run`: makes this run's terms its own; letters and digits. All outlive this.
  Procedure(const ShardConfig& config, ShardCalls& calls, StepLog& log, const std::string& run);

  // Planned: the primary hands over, and no commit is lost. Before the primary is demoted
  // nothing has changed; until the promotion is ordered a failure makes the old primary lead again.
  // Without a primary: as Recover, with `to`. FAILED_PRECONDITION: the candidate is not fit;
  // nothing changed.
  absl::Status Reparent(const ChangeOptions& options);

  // Emergency: the primary is lost, or has to go at once. FAILED_PRECONDITION when the nodes that
  // answer do not prove that every acknowledged commit is among them: nothing has changed, unless a
  // node was lost meanwhile. A primary that is well is only left for `to`; otherwise as Recover, so
  // that a repeated run does not move on to the next node.
  absl::Status Failover(const ChangeOptions& options);

  // Finishes or undoes what it finds: ends an ordered promotion, elects a primary where there is
  // none (as Failover without data loss), makes every node that answers follow the primary through
  // its slot (rewound where its WAL left the primary's history; a copy of another node where that
  // cannot be, or where the primary has removed WAL that it missed), puts the policy in force and
  // opens the doors.
  absl::Status Recover();

  // A new shard: the first node gets a database and leads, the others become copies of it, and the
  // policy is in force once enough of them stream. Goes on where an earlier run was cut off.
  // FAILED_PRECONDITION: a node has data that this would not be a copy of.
  absl::Status Init(const InitOptions& options);

  // Wipes a standby and clones it from another one, or from the primary; one that is fenced because
  // of its disk is so no longer, unless a fault of the disk still counts. FAILED_PRECONDITION: it
  // is the primary; or the others are not enough for the policy meanwhile, unless `force`.
  absl::Status Replace(size_t node, bool force);

  // Takes a standby with a sick disk out of the set whose acknowledgement counts, or puts one back
  // that is well again, as `change` was decided by an earlier look (synchronous_set.h). ABORTED
  // when the nodes say otherwise by now: nothing changed.
  absl::Status ChangeSet(const SetChange& change);

  // From now on the policy of the file comes into force even where it asks for less than the one
  // before and standbys of that one do not learn of it. Failover with accept_data_loss says so too.
  void AcceptDataLoss() { accept_data_loss_ = true; }

  // Of the last look; for the command's last word.
  const std::vector<NodeView>& views() const { return views_; }
  // Nodes that a run left behind: they did not answer, or could not be made to follow.
  const std::vector<std::string>& left_behind() const { return left_behind_; }
  const std::vector<StepRecord>& steps() const { return steps_; }

 private:
  absl::Status RecoverOnce();
  using StepBody = std::function<absl::StatusOr<std::string>()>;
  using NodeBody = std::function<absl::StatusOr<std::string>(size_t node)>;

  // ---- procedure.cc: what all share ----
  // One step: logged with its duration; its text is the step's result.
  absl::Status Step(std::string_view name, const std::string& nodes, const StepBody& body);
  // The same step on several nodes at once, each logged for itself; its status for each of `nodes`.
  std::vector<absl::Status> OnEach(std::string_view name, const std::vector<size_t>& nodes,
                                   const NodeBody& body, const Enough& enough = {});
  // Promotes `leader` and opens the doors to it; meanwhile `followers` are told to follow it. The
  // status of the promotion; errors of the rest are only logged.
  absl::Status Lead(size_t leader, const std::vector<size_t>& followers, const TermHolder& holder);
  // Of any thread.
  void Record(StepRecord step);
  void Finish(std::string_view name, const std::string& nodes, base::MonotonicTime begin,
              const absl::StatusOr<std::string>& result);
  // Without the answers of nodes with another database.
  void ReadViews();
  // Reads all statuses. FAILED_PRECONDITION when these are not the shard's nodes.
  absl::Status Look();
  std::string NameOf(size_t node) const { return config_.nodes[node].id; }
  std::vector<size_t> Others(size_t node) const;
  std::vector<std::string> IdsOf(const std::vector<size_t>& nodes) const;
  // The next term, under this run's name: above all that the agents have stored, and above those
  // that the database notes, for a node that has replayed a term leads in none before it.
  TermHolder NextTerm() const;
  // After a node's answer: true, and *next is a higher term, when its WAL told of one that was not
  // known when *next was chosen.
  bool IsOvertaken(const WalPosition& position, TermHolder* next);
  // True when a primary of the highest term is no primary at the moment, and may be one again soon.
  bool PrimaryIsStarting() const;
  // The primary; one that is just being restarted gets a moment, so that no other takes its place.
  std::optional<size_t> AwaitPrimary();
  absl::Status FinishPromotion(size_t node);

  // ---- reparent.cc ----
  absl::StatusOr<size_t> ChooseCandidate(size_t primary, const ChangeOptions& options) const;
  absl::Status CheckCandidate(size_t primary, size_t candidate) const;
  absl::Status SwitchOver(size_t primary, size_t candidate);
  // Until the primary itself sees the candidate stream and have the LSN: a receiver that is just
  // being restarted would miss the end of WAL.
  absl::Status AwaitFollower(size_t primary, size_t candidate, base::Lsn lsn);
  // The steps before clients notice anything; `prepared`: the candidate has its slots and policy.
  absl::Status Preflight(size_t primary, size_t candidate, const TermHolder& next, bool* prepared);
  // From the demotion up to where a promotion may be ordered.
  absl::Status HandOver(size_t primary, size_t candidate, const TermHolder& next, bool prepared);
  // The old primary leads again. Returns `why`, with what could not be undone.
  absl::Status Undo(size_t primary, size_t candidate, const TermHolder& next, absl::Status why);

  // ---- election.cc ----
  struct Frozen {
    std::vector<std::optional<WalPosition>> positions;  // of those that count as answers
    absl::Status denied;  // OK unless a node let us begin no term: its role table decides
  };
  absl::Status Elect(const ChangeOptions& options, std::optional<size_t> leaving);
  // `leaving`: the primary that has to go. Waits for enough nodes, and for `wanted`.
  Frozen FreezeAll(const TermHolder& next, std::optional<size_t> leaving,
                   std::optional<size_t> wanted);
  absl::StatusOr<WalPosition> Freeze(size_t node, const TermHolder& next, absl::Duration patience);
  Proof Judge(const Frozen& frozen) const;
  Proof Foresee() const;
  // What the proof amounts to, or FAILED_PRECONDITION with the missing nodes.
  absl::StatusOr<std::string> CheckProof(const Proof& proof, const ChangeOptions& options) const;
  absl::Status Prove(const Frozen& frozen, const ChangeOptions& options);
  absl::StatusOr<Choice> Choose(const Frozen& frozen, const ChangeOptions& options,
                                std::optional<size_t> leaving);
  absl::Status CatchUp(size_t leader, size_t ahead, const TermHolder& next,
                       const WalPosition& target);

  // ---- clone.cc ----
  absl::StatusOr<size_t> ChooseFirst() const;
  absl::Status MakeFirst(size_t first, const InitOptions& options);
  // Of an empty node, or of one that may go. Lifts a fence that its node set because of its disk.
  absl::Status CloneNode(size_t node, size_t primary, const TermHolder& holder, bool replace);
  absl::Status LiftDiskFence(size_t node, const TermHolder& holder);

  // ---- settle.cc: make the shard what it should be around its primary ----
  // Slots and policy on a node that is to lead, while it is a standby: in force from its first
  // moment as the primary. Who is condemned by its disk does not count in it.
  absl::Status PrepareLeader(size_t leader, const TermHolder& holder);
  absl::StatusOr<std::string> Follow(size_t node, size_t primary, const TermHolder& holder);
  // Also of a node that still writes.
  absl::Status FollowFromAnyRole(size_t node, size_t primary, const TermHolder& holder);
  // The same, of a node whose server may be down.
  absl::Status StartToFollow(size_t node, size_t primary, const TermHolder& holder);
  // `judged`: an error is about the directory itself, which was compared with the primary's WAL,
  // and not about what else a server needs to start.
  absl::StatusOr<std::string> Rejoin(size_t node, size_t primary, const TermHolder& holder,
                                     bool* judged);
  // Makes a node that can neither follow nor be rewound, for the reason `why`, anew, if its
  // directory is not needed any more.
  absl::Status CloneInstead(size_t node, size_t primary, const TermHolder& holder,
                            const absl::Status& why);
  // Other standbys that have, as the primary sees it, all that it had flushed at the call. Waits
  // for `wanted` of them, not for long.
  int AwaitCopies(size_t node, size_t primary, int wanted);
  // WAL_MISSING: it tries in vain, for the primary has removed WAL that it needs.
  absl::Status WaitUntilStreaming(size_t node, size_t primary, const TermHolder& holder);
  bool FollowsRightly(const NodeView& view, size_t primary, uint64_t term) const;
  absl::Status Settle(size_t primary, const TermHolder& holder);
  // Says how a node that runs comes out of a fence because of its disk.
  void NoteDiskFence(size_t node);
  // The file's policy over the wanted set, once enough of it follow.
  absl::Status PutPolicyInForce(size_t primary, const TermHolder& holder,
                                const std::vector<bool>& follows);
  // Waits until the statuses say what was done: they are a moment old.
  absl::Status Verify(size_t primary, const TermHolder& holder);
  // Nodes that answer and have a door.
  std::vector<size_t> Doors() const;
  // All doors at once; a door that cannot be held opens the others again: then nothing has changed.
  absl::Status HoldTraffic(size_t primary, const TermHolder& holder);
  // When the hold is a while old: from now on for as long again. One that fails is only noted.
  void KeepHolding(const TermHolder& holder);
  // Opens the doors towards the primary, all at once; one that fails is only noted.
  void ReleaseTraffic(size_t primary, const TermHolder& holder, const std::vector<size_t>& doors);
  void LeaveBehind(size_t node, const absl::Status& why);

  const ShardConfig& config_;
  ShardCalls& calls_;
  StepLog& log_;
  const std::string orchestrator_;
  std::vector<NodeView> views_;
  base::MonotonicTime held_at_;
  base::Mutex steps_mutex_;  // while several threads make steps
  std::vector<StepRecord> steps_;
  std::vector<std::string> left_behind_;
  bool accept_data_loss_ = false;
};

}  // namespace metal::shard
