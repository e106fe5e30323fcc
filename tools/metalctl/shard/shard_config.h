// shard.toml: which nodes make up a shard, how to reach them, and when a commit counts as durable.
// One table of keys (shard_config.cc) gives parsing, checks and the file that `metalctl shard
// template` prints. Unknown keys are errors. Threading: immutable after LoadShardConfig.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::shard {

// Where a server listens. `host`: a name, an address, or the directory of a unix socket.
struct HostPort {
  std::string host;
  int port = 0;
  bool operator==(const HostPort&) const = default;
  bool is_set() const { return port != 0; }
  std::string ToString() const;  // "host:port", "[v6]:port"
};
// "host:port", "[v6]:port" or "/directory:port", port from 1 to 65535.
std::optional<HostPort> ParseHostPort(std::string_view text);

// When a commit is acknowledged: once `count` standbys have it.
struct SyncPolicy {
  enum class Method { kAny, kFirst };
  Method method = Method::kAny;
  int count = 1;  // 1 or more, less than the number of nodes
  bool operator==(const SyncPolicy&) const = default;
  std::string ToString() const;  // "ANY 1"
  // The value of synchronous_standby_names on a primary with these standbys: ANY 1 ("b", "c").
  std::string Setting(const std::vector<std::string>& standbys) const;
};
std::optional<SyncPolicy> ParseSyncPolicy(std::string_view text);

struct ShardNode {
  std::string id;           // agent.node_id, which is also the standby's application_name
  std::string agent;        // endpoint of the agent: "host:port" or "unix:/path"
  std::string server_name;  // name that the agent's certificate must hold; empty: as in `agent`
  HostPort postgres;        // as the other nodes reach it
  HostPort gate;            // where clients reach it; not set when there is no gate
  HostPort transfer;        // its agent's transfer listener; not set: it cannot be cloned from
};

struct ShardConfig {
  std::string name;          // agent.cluster_id of every node
  std::string orchestrator;  // under which name terms are begun; one per operator's tool
  SyncPolicy policy;
  uint64_t max_lag_bytes = 0;    // a standby farther behind is a finding, and no candidate
  uint64_t clone_rate = 0;       // bytes per second of a node that is cloned; 0: no limit
  std::string ca, cert, key;     // of metalctl towards agents; empty: no TLS
  std::vector<ShardNode> nodes;  // in the file's order; at least two, ids are unique
  std::string file;

  // Index in `nodes`; nullopt for an id that is not there.
  std::optional<size_t> Find(std::string_view id) const;
  std::string Ids() const;  // "a, b, c"
  // True for a term that was begun with this file: by `orchestrator` itself, or by a run of a
  // procedure, which calls itself "orchestrator:run".
  bool IsOurs(std::string_view holder) const;
};

// INVALID_ARGUMENT names file, line, key and what is allowed, with a HINT. Files that are named in
// it are not opened. Relative paths are meant from the file's directory.
absl::StatusOr<ShardConfig> ParseShardConfig(std::string_view toml, const std::string& file);
// The same from a file; certificates and keys must be readable.
absl::StatusOr<ShardConfig> LoadShardConfig(const std::string& path);

// Every key with its meaning, as a commented file for three nodes.
std::string ShardConfigTemplate();

// The slot that node `id` uses on its primary: "metal_" and the id in lower case, every character
// but letters, digits and '_' replaced by '_'.
std::string SlotName(std::string_view id);

}  // namespace metal::shard
