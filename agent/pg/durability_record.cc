#include "agent/pg/durability_record.h"

#include "agent/base/status.h"
#include "agent/pg/replication.h"

namespace metal::pg {
namespace {

constexpr const char* kInForce = "SELECT current_setting('synchronous_standby_names') AS names";

// What PostgreSQL takes and we do not (more than 16 names) proves nothing but the primary's copy.
DurabilityRule RuleInForce(const std::string& node_id, const std::string& setting) {
  const auto policy = ParsePolicy(setting);
  return RuleOf(node_id, policy.ok() ? *policy : SynchronousPolicy());
}

}  // namespace

absl::StatusOr<std::set<std::string>> NodesWith(SqlSession& session, const std::string& node_id,
                                                base::Lsn lsn, absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(const std::vector<FollowerState> followers,
                         QueryFollowers(session, timeout));
  std::set<std::string> nodes = {node_id};
  for (const FollowerState& each : followers) {
    if (each.flush >= lsn) nodes.insert(each.application_name);
  }
  return nodes;
}

absl::StatusOr<RecordState> KeepRecord(SqlSession& session, const DurabilityOwner& owner,
                                       base::Lsn* since, absl::Duration timeout) {
  RecordState state;
  METAL_ASSIGN_OR_RETURN(const SqlResult found, session.Query(kInForce, timeout));
  state.in_force = found.Text(0, "names");
  METAL_ASSIGN_OR_RETURN(state.before, QueryDurability(session, owner.cluster_id, timeout));
  const DurabilityRule rule = RuleInForce(owner.node_id, state.in_force);
  state.now = With(state.before, rule);
  if (state.now != state.before) {
    state.weaker = !Covers(rule, state.before);
    METAL_RETURN_IF_ERROR(WriteDurability(session, owner, state.now, timeout));
    *since = base::Lsn();
  }
  state.settled = state.now.size() == 1;
  if (state.settled) return state;
  if (!since->valid()) {
    METAL_ASSIGN_OR_RETURN(const ServerState server, QueryServerState(session, timeout));
    *since = server.flush;
  }
  METAL_ASSIGN_OR_RETURN(const std::set<std::string> nodes,
                         NodesWith(session, owner.node_id, *since, timeout));
  if (!Satisfied(state.now, nodes)) return state;
  state.now = {rule};
  METAL_RETURN_IF_ERROR(WriteDurability(session, owner, state.now, timeout));
  state.settled = true;
  return state;
}

}  // namespace metal::pg
