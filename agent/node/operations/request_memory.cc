// How OperationManager recognizes a repeated request: operations by their request_id, short calls
// by their remembered answer.
#include "agent/base/status.h"
#include "agent/node/emit.h"
#include "agent/node/operations/operation_entry.h"
#include "agent/node/operations/operations.h"

namespace metal::node {

absl::Status OperationManager::RequestReused(const std::string& request_id,
                                             const std::string& earlier) {
  return base::WithReason(
      base::Error(absl::StatusCode::kInvalidArgument,
                  "request_id {} was used for another request ({}). HINT: use a new request_id for "
                  "each new request",
                  request_id, earlier),
      {.reason = "REQUEST_ID_REUSED",
       .metadata = {{"request_id", request_id}, {"earlier", earlier}}});
}

absl::Status OperationManager::Stopping() {
  return absl::UnavailableError("the agent is stopping. HINT: try again once it is back");
}

absl::StatusOr<OperationManager::EntryPtr> OperationManager::FindRepeatedLocked(
    const RequestContext& request) {
  if (request.request_id.empty()) return EntryPtr();
  const auto name = by_request_.find(request.request_id);
  if (name == by_request_.end()) return EntryPtr();
  const auto entry = entries_.find(name->second);
  if (entry == entries_.end() ||
      clock_.Now() - entry->second->operation.create_time > options_.remember) {
    by_request_.erase(name);
    return EntryPtr();
  }
  if (entry->second->operation.spec.request.body_hash != request.body_hash) {
    return RequestReused(request.request_id, entry->first);
  }
  return entry->second;
}

absl::StatusOr<std::optional<Operation>> OperationManager::FindByRequest(
    const RequestContext& request) {
  // Without a hash the body is not known yet: Start compares it.
  if (request.body_hash.empty()) return std::optional<Operation>();
  base::MutexLock lock(mutex_);
  METAL_ASSIGN_OR_RETURN(const EntryPtr entry, FindRepeatedLocked(request));
  if (entry == nullptr || !entry->admitted) return std::optional<Operation>();
  return std::optional<Operation>(ViewLocked(*entry));
}

absl::StatusOr<std::optional<std::string>> OperationManager::RecallAnswer(
    const RequestContext& request, const std::string& method) {
  METAL_ASSIGN_OR_RETURN(const auto earlier, journal_->Recall(request.request_id));
  if (!earlier || clock_.Now() - earlier->time > options_.remember) {
    return std::optional<std::string>();
  }
  if (earlier->method != method || earlier->body_hash != request.body_hash) {
    return RequestReused(request.request_id, earlier->method);
  }
  return std::optional<std::string>(earlier->answer);
}

absl::StatusOr<std::string> OperationManager::RunOnce(
    const RequestContext& request, const std::string& method,
    const std::function<absl::StatusOr<std::string>()>& run) {
  if (request.request_id.empty()) return run();
  if (request.request_id.size() > 256) {
    return absl::InvalidArgumentError("request_id is longer than 256 bytes");
  }
  {
    base::MutexLock lock(mutex_);
    if (stopping_) return Stopping();
    METAL_ASSIGN_OR_RETURN(const EntryPtr operation, FindRepeatedLocked(request));
    if (operation != nullptr) return RequestReused(request.request_id, operation->operation.name);
    const auto [running, inserted] = short_calls_.try_emplace(request.request_id, method);
    if (!inserted) {
      return base::WithReason(
          base::Error(absl::StatusCode::kAborted,
                      "request {} ({}) is still being answered. HINT: try again shortly",
                      request.request_id, running->second),
          {.reason = "ACTION_IN_PROGRESS", .metadata = {{"holder", running->second}}});
    }
  }
  absl::StatusOr<std::string> answer = [&]() -> absl::StatusOr<std::string> {
    METAL_ASSIGN_OR_RETURN(std::optional<std::string> earlier, RecallAnswer(request, method));
    if (earlier) return *std::move(earlier);
    METAL_ASSIGN_OR_RETURN(std::string fresh, run());
    absl::Status stored =
        journal_->Remember({request.request_id, method, request.body_hash, fresh, clock_.Now()});
    if (stored.ok()) {
      stored = journal_->Forget(clock_.Now() - options_.remember, options_.remember_max);
    }
    if (!stored.ok()) {
      Emit(events_, observe::Severity::kError, "operation.journal_failed", options_.path,
           fmt::format("the answer to {} is not remembered: {}", method,
                       std::string(stored.message())));
    }
    return fresh;
  }();
  base::MutexLock lock(mutex_);
  short_calls_.erase(request.request_id);
  return answer;
}

}  // namespace metal::node
