// An event log in memory, for tests that look at what was reported. Threading: thread-safe.
#pragma once

#include <string>
#include <vector>

#include "agent/base/mutex.h"
#include "agent/observe/event_log.h"

namespace metal::node {

class MemoryEventLog final : public observe::EventLog {
 public:
  void Append(observe::Event event) override {
    base::MutexLock lock(mutex_);
    event.id = events_.size() + 1;
    events_.push_back(std::move(event));
  }
  absl::StatusOr<std::vector<observe::Event>> List(const observe::EventFilter&) override {
    base::MutexLock lock(mutex_);
    return events_;
  }
  absl::StatusOr<std::vector<observe::Event>> WaitAfter(uint64_t, absl::Duration) override {
    return std::vector<observe::Event>();
  }
  uint64_t last_id() override {
    base::MutexLock lock(mutex_);
    return events_.size();
  }
  absl::Status Flush(absl::Duration) override { return absl::OkStatus(); }

  size_t Count(const std::string& type) {
    base::MutexLock lock(mutex_);
    size_t count = 0;
    for (const observe::Event& event : events_) count += event.type == type ? 1 : 0;
    return count;
  }

 private:
  base::Mutex mutex_;
  std::vector<observe::Event> events_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::node
