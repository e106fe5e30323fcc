#include "agent/observe/status_board.h"

#include <algorithm>
#include <utility>

namespace metal::observe {
namespace {

std::string FaultKey(const std::string& fault_class, const std::string& subject) {
  return fault_class + "/" + subject;
}

}  // namespace

StatusBoard::StatusBoard(base::Clock& clock) : clock_(clock) {
  auto first = std::make_shared<NodeStatus>();
  first->captured_at = clock_.Now();
  // Above every revision of an earlier run: nobody publishes a thousand times a second for long.
  first->revision =
      static_cast<uint64_t>(std::max<int64_t>(absl::ToUnixMillis(first->captured_at), 0));
  first->monotonic = clock_.Monotonic();
  current_ = std::move(first);
}

std::shared_ptr<const NodeStatus> StatusBoard::Get() {
  base::MutexLock lock(mutex_);
  return current_;
}

void StatusBoard::Update(const std::function<void(NodeStatus&)>& change) {
  std::shared_ptr<const NodeStatus> previous;  // freed after the lock is released
  base::MutexLock lock(mutex_);
  auto next = std::make_shared<NodeStatus>(*current_);
  change(*next);
  next->revision = current_->revision + 1;
  next->captured_at = clock_.Now();
  next->monotonic = clock_.Monotonic();
  previous = std::exchange(current_, std::move(next));
  changed_.NotifyAll();
}

std::shared_ptr<const NodeStatus> StatusBoard::WaitAfter(uint64_t revision,
                                                         absl::Duration timeout) {
  base::MutexLock lock(mutex_);
  changed_.WaitFor(mutex_, timeout,
                   [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return current_->revision > revision; });
  return current_;
}

void StatusBoard::RaiseFault(Fault fault) {
  Update([&](NodeStatus& status) {
    Fault& entry = status.faults[FaultKey(fault.fault_class, fault.subject)];
    const bool known = !entry.fault_class.empty();
    const absl::Time since = known ? entry.since : fault.since;
    entry = std::move(fault);
    entry.since = since;
  });
}

void StatusBoard::ClearFault(const std::string& fault_class, const std::string& subject) {
  const std::string key = FaultKey(fault_class, subject);
  if (!Get()->faults.contains(key)) return;  // no revision without a change
  Update([&](NodeStatus& status) { status.faults.erase(key); });
}

}  // namespace metal::observe
