#include "agent/node/steps/synchronous_steps.h"

#include <algorithm>
#include <set>

#include "agent/base/fault_point.h"
#include "agent/base/status.h"
#include "agent/pg/durability_record.h"
#include "agent/pg/replication.h"
#include "agent/pg/settings.h"

namespace metal::node {

namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kReload = absl::Seconds(10);

// Waits until every process of the server was told: the postmaster tells them one after the other,
// and takes the next request only when it is through.
absl::Status AwaitAllTold(RoleStepContext& steps, pg::SqlSession& session) {
  const char* const loaded_sql = "SELECT extract(epoch FROM pg_conf_load_time()) AS loaded";
  METAL_ASSIGN_OR_RETURN(const pg::SqlResult before, session.Query(loaded_sql, kQuery));
  METAL_RETURN_IF_ERROR(session.Query("SELECT pg_reload_conf()", kQuery).status());
  return PollUntil(steps, kReload, "the server did not reload", [&]() -> absl::StatusOr<bool> {
    METAL_ASSIGN_OR_RETURN(const pg::SqlResult now, session.Query(loaded_sql, kQuery));
    return now.Time(0, "loaded") > before.Time(0, "loaded");
  });
}

}  // namespace

absl::Status InstallPolicy(RoleStepContext& steps, pg::SqlSession* session,
                           const pg::SynchronousPolicy& policy) {
  const std::string value = pg::RenderPolicy(policy);
  METAL_RETURN_IF_ERROR(pg::PatchAgentPart(
      steps.data_dir,
      {{kSynchronousSetting, value.empty() ? std::nullopt : std::optional<std::string>(value)}}));
  METAL_RETURN_IF_ERROR(base::FaultPoint("roles.synchronous_written"));
  if (session == nullptr) return steps.supervisor.Reload();
  METAL_RETURN_IF_ERROR(session->Query("SELECT pg_reload_conf()", kQuery).status());
  const absl::Status loaded =
      PollUntil(steps, kReload, "the server did not load synchronous_standby_names",
                [&]() -> absl::StatusOr<bool> {
                  METAL_ASSIGN_OR_RETURN(const std::string in_force,
                                         ShowSetting(*session, kSynchronousSetting));
                  return in_force == value;
                });
  if (loaded.ok()) return AwaitAllTold(steps, *session);
  if (!absl::IsDeadlineExceeded(loaded)) return loaded;
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "{} is set elsewhere too, and that wins. HINT: ALTER SYSTEM RESET {}",
                  kSynchronousSetting, kSynchronousSetting),
      {"SETTING_OVERRIDDEN", {{"setting", kSynchronousSetting}}});
}

absl::Status AwaitAcknowledged(RoleStepContext& steps, pg::SqlSession& session,
                               const pg::SynchronousPolicy& policy, absl::Duration timeout) {
  steps.progress.BeginPhase("waiting for the standbys to acknowledge");
  METAL_RETURN_IF_ERROR(
      session.Query("SELECT pg_logical_emit_message(true, 'metal', 'synchronous')", kQuery)
          .status());
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(session, kQuery));
  const std::string what =
      fmt::format("{} did not acknowledge {}", pg::RenderPolicy(policy), state.flush.ToString());
  return PollUntil(steps, timeout, what, [&]() -> absl::StatusOr<bool> {
    METAL_ASSIGN_OR_RETURN(const std::vector<pg::FollowerState> followers,
                           pg::QueryFollowers(session, kQuery));
    const auto acknowledged = std::ranges::count_if(policy.names, [&](const std::string& name) {
      return std::ranges::any_of(followers, [&](const pg::FollowerState& follower) {
        return follower.application_name == name && follower.flush >= state.flush;
      });
    });
    return acknowledged >= policy.count;
  });
}

absl::Status AwaitRecorded(RoleStepContext& steps, pg::SqlSession& session,
                           const std::string& node_id, const pg::DurabilityRecord& record,
                           absl::Duration timeout) {
  steps.progress.BeginPhase("waiting for the standbys to know the change");
  METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(session, kQuery));
  std::string rules = pg::EncodeDurability(record);
  std::ranges::replace(rules, '\n', ' ');
  const std::string what = fmt::format("not enough nodes of {}have the record of the change at {}",
                                       rules, state.flush.ToString());
  return PollUntil(steps, timeout, what, [&]() -> absl::StatusOr<bool> {
    METAL_ASSIGN_OR_RETURN(const std::set<std::string> nodes,
                           pg::NodesWith(session, node_id, state.flush, kQuery));
    return pg::Satisfied(record, nodes);
  });
}

}  // namespace metal::node
