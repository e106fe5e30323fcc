// Where sources put what they find. It is closed before those who take it are gone, while a source
// may still hang in a device with a reference to the outlet.
// Threading: thread-safe.
#pragma once

#include <algorithm>
#include <functional>
#include <utility>

#include "agent/base/mutex.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/sources/kernel_log.h"
#include "agent/observe/event_log.h"

namespace metal::disk {

// Must not block and must not destroy its source; called by one thread at a time.
using EvidenceSink = std::function<void(Evidence)>;

class Outlet {
 public:
  // `lines` may be null.
  Outlet(EvidenceSink sink, observe::EventLog& events, KernelLineSink lines = nullptr)
      : sink_(std::move(sink)), lines_(std::move(lines)), events_(&events) {}

  void Give(Findings findings) {
    base::MutexLock lock(mutex_);
    if (events_ == nullptr) return;
    if (lines_) std::ranges::for_each(findings.lines, lines_);
    for (observe::Event& event : findings.events) events_->Append(std::move(event));
    for (Evidence& evidence : findings.evidence) sink_(std::move(evidence));
  }
  // Nothing is given any more once this returned.
  void Close() {
    base::MutexLock lock(mutex_);
    events_ = nullptr;
    sink_ = nullptr;
    lines_ = nullptr;
  }

 private:
  base::Mutex mutex_;
  EvidenceSink sink_ ABSL_GUARDED_BY(mutex_);
  KernelLineSink lines_ ABSL_GUARDED_BY(mutex_);
  observe::EventLog* events_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::disk
