// The agents of a shard, asked at once: one connection and, during calls at once, one thread for
// each, so that a dead node never holds up the others. Threading: one caller at a time; the threads
// are this object's own.
#pragma once

#include <memory>
#include <vector>

#include "tools/metalctl/client.h"
#include "tools/metalctl/shard/agent_calls.h"
#include "tools/metalctl/shard/node_view.h"
#include "tools/metalctl/shard/shard_config.h"

namespace metal::shard {

class AgentShard : public ShardCalls {
 public:
  // `config` outlives this. `options`: TLS of the command line where the config has none.
  AgentShard(const ShardConfig& config, const ctl::ClientOptions& options);

  NodeCalls& node(size_t index) override { return *calls_[index]; }
  // REQUIRES: at most one call for each node.
  void AtOnce(const std::vector<NodeCall>& calls, const Enough& enough) override;
  base::Clock& clock() override { return base::RealClock(); }

  // The status of every node, in the config's order. Takes at most `patience`, or little more; who
  // has not answered by then is a view that did not answer.
  std::vector<NodeView> ReadStatuses(absl::Duration patience);
  // Tells each node that answered how fast the others' disks are. What fails is told again by the
  // next look.
  void TellPeers(const std::vector<NodeView>& views, absl::Duration patience);

 private:
  const ShardConfig& config_;
  std::vector<std::unique_ptr<ctl::Client>> clients_;
  std::vector<std::unique_ptr<AgentCalls>> calls_;
};

}  // namespace metal::shard
