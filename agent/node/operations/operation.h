// An operation: a long action of this node, journaled, watched, cancelled, and never silently gone.
// Plain values.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/observe/progress.h"

namespace metal::node {

enum class OperationState { kPending, kRunning, kSucceeded, kFailed, kCancelled };
std::string_view OperationStateName(OperationState state);  // "pending"
inline bool IsTerminal(OperationState state) {
  return state != OperationState::kPending && state != OperationState::kRunning;
}

// Who asks, and how a repeated request is recognized.
struct RequestContext {
  std::string request_id;  // unique per request (UUID); empty: the call is not repeatable
  std::string body_hash;   // a hash of the whole request without request_id; same id with another
                           // hash is refused
  std::string caller;      // for the journal: a certificate's SAN, "unix" or the peer's address
  // Polled by a call that waits; true: the caller is gone, so stop waiting. The action itself never
  // ends because its caller left. May be empty.
  std::function<bool()> caller_left;
};

// Which operations may run beside each other.
enum class OperationLane {
  kAction,  // changes the node: one at a time, holds the action lock
  kBackup,  // one at a time, beside an action: a role change never waits for a backup
  kReader,  // reads only (verify, storage probe): up to 4
};

struct OperationSpec {
  std::string kind;     // "CreateBackup": the RPC that starts it
  std::string subject;  // what it is about: "postgres", "backups/20261122T021500Z-F"
  std::map<std::string, std::string> parameters;  // enough to resume it; shown to people
  OperationLane lane = OperationLane::kAction;
  RequestContext request;
  uint64_t term = 0;  // 0: not under a term
};

struct OperationResult {
  std::string name;  // resource that was made, e.g. "backups/20261122T021500Z-F"; may be empty
  std::map<std::string, std::string> values;  // what the caller wants to know, e.g. "pid" → "4711"
};

struct Operation {
  std::string name;  // "operations/<id>"; ids sort by creation
  OperationSpec spec;
  OperationState state = OperationState::kPending;
  observe::ProgressSnapshot progress;
  bool cancel_requested = false;
  absl::Time create_time = absl::InfinitePast();
  absl::Time start_time = absl::InfinitePast();   // when the body began; infinite past before
  absl::Time update_time = absl::InfinitePast();  // last journaled change
  absl::Time end_time = absl::InfinitePast();     // infinite past while not terminal
  absl::Status error;      // not OK in kFailed and kCancelled; its reason as base::GetReason
  OperationResult result;  // of kSucceeded; while running, the facts published so far
  uint64_t revision = 0;   // of the manager, at the last change of this operation
  bool done() const { return IsTerminal(state); }
};

// What a running body may use. Lives as long as the body runs.
struct OperationContext {
  const std::string& name;
  const OperationSpec& spec;
  observe::Progress& progress;  // report phases and bytes; poll CheckCancelled()
  // Shows facts of the result before the end, to callers that can go on with them; not journaled.
  const std::function<void(const std::map<std::string, std::string>&)>& publish;
};

// Runs on the operation's own thread, detached from whoever asked. A CANCELLED status after a
// cancel request ends the operation as kCancelled, any other error as kFailed.
using OperationBody = std::function<absl::StatusOr<OperationResult>(OperationContext&)>;

}  // namespace metal::node
