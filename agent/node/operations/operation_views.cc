// What OperationManager answers from memory: get, list, wait, watch, cancel.
#include <algorithm>

#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/node/operations/operation_entry.h"
#include "agent/node/operations/operations.h"

namespace metal::node {

namespace {

// CondVar adds the timeout to a time point: an infinite one would overflow.
constexpr absl::Duration kLongestWait = absl::Hours(24);
constexpr size_t kDefaultPage = 50;
constexpr size_t kLargestPage = 1000;

}  // namespace

std::string_view OperationStateName(OperationState state) {
  switch (state) {
    case OperationState::kPending:
      return "pending";
    case OperationState::kRunning:
      return "running";
    case OperationState::kSucceeded:
      return "succeeded";
    case OperationState::kFailed:
      return "failed";
    case OperationState::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

void OperationManager::BumpLocked(Entry& entry) {
  entry.operation.revision = ++revision_;
  publish_ = true;
  published_.NotifyAll();
}

Operation OperationManager::ViewLocked(Entry& entry) {
  Operation view = entry.operation;
  if (entry.live() && !view.done()) view.progress = entry.progress->Snapshot();
  return view;
}

absl::StatusOr<OperationManager::EntryPtr> OperationManager::FindLocked(const std::string& name) {
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) {
    return base::Error(absl::StatusCode::kNotFound,
                       "no operation \"{}\"; the newest {} are kept. HINT: ListOperations", name,
                       options_.keep);
  }
  return entry->second;
}

absl::StatusOr<Operation> OperationManager::Get(const std::string& name) {
  base::MutexLock lock(mutex_);
  METAL_ASSIGN_OR_RETURN(const EntryPtr entry, FindLocked(name));
  return ViewLocked(*entry);
}

absl::StatusOr<OperationPage> OperationManager::List(const OperationFilter& filter) {
  if (!filter.page_token.empty() && !filter.page_token.starts_with("operations/")) {
    return absl::InvalidArgumentError(
        "page_token is not one of ours. HINT: pass next_page_token of the page before, or nothing");
  }
  const size_t size =
      filter.page_size == 0 ? kDefaultPage : std::min(filter.page_size, kLargestPage);
  OperationPage page;
  base::MutexLock lock(mutex_);
  auto end = filter.page_token.empty() ? entries_.end() : entries_.lower_bound(filter.page_token);
  while (end != entries_.begin()) {
    --end;
    Entry& entry = *end->second;
    if (!filter.kind.empty() && entry.operation.spec.kind != filter.kind) continue;
    if (filter.unfinished && entry.operation.done()) continue;
    if (page.operations.size() == size) {
      page.next_page_token = page.operations.back().name;
      break;
    }
    page.operations.push_back(ViewLocked(entry));
  }
  return page;
}

absl::StatusOr<Operation> OperationManager::Wait(const std::string& name, absl::Duration timeout) {
  base::MutexLock lock(mutex_);
  METAL_ASSIGN_OR_RETURN(const EntryPtr entry, FindLocked(name));
  changed_.WaitFor(mutex_, std::min(timeout, kLongestWait),
                   [&] { return entry->operation.done() || stopping_; });
  return ViewLocked(*entry);
}

absl::StatusOr<Operation> OperationManager::WaitForChange(const std::string& name,
                                                          uint64_t revision,
                                                          absl::Duration timeout) {
  base::MutexLock lock(mutex_);
  METAL_ASSIGN_OR_RETURN(const EntryPtr entry, FindLocked(name));
  changed_.WaitFor(mutex_, std::min(timeout, kLongestWait),
                   [&] { return entry->operation.revision > revision || stopping_; });
  return ViewLocked(*entry);
}

absl::StatusOr<Operation> OperationManager::Cancel(const std::string& name) {
  Operation view;
  {
    base::MutexLock lock(mutex_);
    METAL_ASSIGN_OR_RETURN(const EntryPtr entry, FindLocked(name));
    if (!entry->live() || entry->operation.done()) return ViewLocked(*entry);
    entry->operation.cancel_requested = true;
    entry->progress->RequestCancel();
    BumpLocked(*entry);
    changed_.NotifyAll();
    view = ViewLocked(*entry);
  }
  // So that an agent that dies now does not resume it. The body was asked already: a journal that
  // cannot be written is no reason to refuse.
  if (const absl::Status stored = journal_->PutPhase(view); !stored.ok()) {
    base::LogWarning("journal the cancelling of {}: {}", name, std::string(stored.message()));
  }
  return view;
}

}  // namespace metal::node
