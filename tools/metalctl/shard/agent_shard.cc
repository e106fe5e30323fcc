#include "tools/metalctl/shard/agent_shard.h"

#include <algorithm>

#include "agent/base/mutex.h"
#include "agent/base/thread.h"

namespace metal::shard {
namespace {

// Which of several calls have ended. What a call wrote may be read by who has seen it here.
class Ends {
 public:
  explicit Ends(size_t count) : ended_(count) {}

  void End(size_t call) {
    const base::MutexLock lock(mutex_);
    ended_[call] = true;
    changed_.NotifyAll();
  }
  // Waits until all have ended, or until it is enough and the grace has passed; returns which
  // ended.
  std::vector<bool> Wait(const Enough& enough) {
    const base::MutexLock lock(mutex_);
    const auto all = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return std::find(ended_.begin(), ended_.end(), false) == ended_.end();
    };
    while (!all()) {
      if (enough.test && enough.test(ended_)) {
        changed_.WaitFor(mutex_, enough.grace, all);
        break;
      }
      changed_.Wait(mutex_);
    }
    return ended_;
  }

 private:
  base::Mutex mutex_;
  base::CondVar changed_;
  std::vector<bool> ended_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

AgentShard::AgentShard(const ShardConfig& config, const ctl::ClientOptions& options)
    : config_(config) {
  for (const ShardNode& node : config.nodes) {
    ctl::ClientOptions own = options;
    own.endpoint = node.agent;
    if (!config.ca.empty()) {
      own.ca = config.ca;
      own.certificate = config.cert;
      own.key = config.key;
    }
    if (!node.server_name.empty()) own.server_name = node.server_name;
    clients_.push_back(std::make_unique<ctl::Client>(own));
    calls_.push_back(std::make_unique<AgentCalls>(node.id, *clients_.back(), base::RealClock()));
  }
}

void AgentShard::AtOnce(const std::vector<NodeCall>& calls, const Enough& enough) {
  Ends ends(calls.size());
  std::vector<base::Thread> threads;
  for (size_t i = 0; i < calls.size(); ++i) {
    calls_[calls[i].node]->Arm();
    threads.emplace_back("shard-call", [&calls, &ends, i] {
      calls[i].run();
      ends.End(i);
    });
  }
  const std::vector<bool> ended = ends.Wait(enough);
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!ended[i]) calls_[calls[i].node]->Abandon();
  }
  for (auto& thread : threads) thread.Join();
  for (const NodeCall& call : calls) calls_[call.node]->Arm();
}

std::vector<NodeView> AgentShard::ReadStatuses(absl::Duration patience) {
  std::vector<NodeView> views(calls_.size());
  std::vector<NodeCall> calls;
  for (size_t i = 0; i < calls_.size(); ++i) {
    calls.push_back({i, [this, i, patience, &views] {
                       auto view = calls_[i]->GetStatus(patience);
                       views[i] = view.ok() ? *std::move(view)
                                            : UnreachableView(config_.nodes[i].id,
                                                              std::string(view.status().message()));
                     }});
  }
  AtOnce(calls, {});
  return views;
}

void AgentShard::TellPeers(const std::vector<NodeView>& views, absl::Duration patience) {
  std::vector<NodeCall> calls;
  for (size_t i = 0; i < views.size(); ++i) {
    if (!views[i].answered) continue;
    calls.push_back({i, [this, &views, patience, i] {
                       // An agent that is gone, or too old to know the call, is not told.
                       calls_[i]->TellPeers(views, patience).IgnoreError();
                     }});
  }
  AtOnce(calls, {});
}

}  // namespace metal::shard
