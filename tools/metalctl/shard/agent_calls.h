// The calls of procedures to one agent, over gRPC. Threading: as NodeCalls; Abandon may be called
// from another thread.
#pragma once

#include <set>

#include "agent/base/mutex.h"
#include "tools/metalctl/client.h"
#include "tools/metalctl/shard/node_calls.h"

namespace metal::shard {

// What node `id` of the shard's file is told of the others that answered.
ctl::v1::TellPeersRequest PeersOf(const std::string& id, const std::vector<NodeView>& views);

class AgentCalls : public NodeCalls {
 public:
  // `id`: of shard.toml. `client` and `clock` outlive this.
  AgentCalls(std::string id, ctl::Client& client, base::Clock& clock)
      : id_(std::move(id)), client_(client), clock_(clock) {}

  absl::StatusOr<NodeView> GetStatus(absl::Duration patience) override;
  // Of those views that are not this node's.
  absl::Status TellPeers(const std::vector<NodeView>& views, absl::Duration patience);
  absl::StatusOr<TermAnswer> BeginTerm(const TermHolder& holder, absl::Duration patience) override;
  absl::StatusOr<WalPoint> Promote(const TermHolder& holder) override;
  absl::Status PrepareDemote(const TermHolder& holder) override;
  absl::StatusOr<WalPoint> Demote(const TermHolder& holder) override;
  absl::Status UndoDemote(const TermHolder& holder) override;
  absl::Status FollowPrimary(const TermHolder& holder, const HostPort& source,
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

  // The present calls, and those after them, fail with CANCELLED until Arm(). What was asked for
  // goes on at the agent.
  void Abandon();
  void Arm();

 private:
  // One call with a deadline; made again while the agent is busy with another action.
  absl::Status Call(absl::Duration patience,
                    const std::function<grpc::Status(grpc::ClientContext*)>& call);
  grpc::Status CallOnce(base::MonotonicTime deadline,
                        const std::function<grpc::Status(grpc::ClientContext*)>& call);
  // Follows an operation until `ready` or its end; its facts. The operation's error when it failed.
  absl::StatusOr<std::map<std::string, std::string>> Follow(
      const ctl::v1::Operation& started, absl::Duration patience,
      const std::function<bool(const ctl::v1::Operation&)>& ready);
  absl::Status RunRewind(const TermHolder& holder, const HostPort& primary, bool dry_run);
  absl::StatusOr<std::map<std::string, std::string>> RunDemote(const TermHolder& holder,
                                                               bool prepare);

  const std::string id_;
  ctl::Client& client_;
  base::Clock& clock_;
  base::Mutex mutex_;
  std::set<grpc::ClientContext*> current_ ABSL_GUARDED_BY(mutex_);
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace metal::shard
