// The agents of a shard, asked at once: one connection and, during a call, one thread for each, so
// that a dead node never holds up the others. Threading: one caller at a time; the threads are this
// object's own.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "tools/metalctl/client.h"
#include "tools/metalctl/shard/node_view.h"
#include "tools/metalctl/shard/shard_config.h"

namespace metal::shard {

// Runs all at once, each on a thread of its own; returns when the last has ended.
void RunAtOnce(std::vector<std::function<void()>> calls);

class AgentShard {
 public:
  // `config` outlives this. `options`: TLS of the command line where the config has none.
  AgentShard(const ShardConfig& config, const ctl::ClientOptions& options);

  // The status of every node, in the config's order. Takes at most `patience`; who has not answered
  // by then is a view that did not answer.
  std::vector<NodeView> ReadStatuses(absl::Duration patience);

  ctl::Client& client(size_t node) { return *clients_[node]; }

 private:
  const ShardConfig& config_;
  std::vector<std::unique_ptr<ctl::Client>> clients_;
};

}  // namespace metal::shard
