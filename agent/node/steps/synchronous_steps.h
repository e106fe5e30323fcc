// The steps that change who has to acknowledge commits. Each is safe to repeat. Threading: on the
// operation's thread; blocks on SQL and the data disk.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/node/steps/role_steps.h"
#include "agent/pg/durability.h"
#include "agent/pg/session.h"
#include "agent/pg/synchronous.h"

namespace metal::node {

inline constexpr const char* kSynchronousSetting = "synchronous_standby_names";

// Writes the policy into metal.conf, and waits until a running server has loaded it, its walsenders
// too: they are who releases commits. `session`: null when the server is down.
// FAILED_PRECONDITION (SETTING_OVERRIDDEN): something else sets it too.
absl::Status InstallPolicy(RoleStepContext& steps, pg::SqlSession* session,
                           const pg::SynchronousPolicy& policy);

// Waits until so many of the policy's standbys have flushed all WAL that there is now. Seen in
// their own positions: a commit that returned would prove less, for it may have been released by a
// process that did not know the policy yet.
absl::Status AwaitAcknowledged(RoleStepContext& steps, pg::SqlSession& session,
                               const pg::SynchronousPolicy& policy, absl::Duration timeout);

// Waits until nodes enough for every rule of the record have flushed all WAL that there is now,
// with the record in it. `node_id` is this primary.
absl::Status AwaitRecorded(RoleStepContext& steps, pg::SqlSession& session,
                           const std::string& node_id, const pg::DurabilityRecord& record,
                           absl::Duration timeout);

}  // namespace metal::node
