// An event log in memory. Threading: thread-safe.
#pragma once

#include <string>
#include <vector>

#include "agent/base/mutex.h"
#include "agent/observe/event_log.h"

namespace metal::testing {

class RecordedEvents final : public observe::EventLog {
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

  std::vector<std::string> types() {
    base::MutexLock lock(mutex_);
    std::vector<std::string> types;
    for (const observe::Event& event : events_) types.push_back(event.type);
    return types;
  }

 private:
  base::Mutex mutex_;
  std::vector<observe::Event> events_;
};

}  // namespace metal::testing
