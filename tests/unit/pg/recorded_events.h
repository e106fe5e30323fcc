// An event log in memory that a test can wait on. Threading: thread-safe.
#pragma once

#include <string>
#include <vector>

#include "agent/base/mutex.h"
#include "agent/observe/event_log.h"

namespace metal::pg {

class RecordedEvents final : public observe::EventLog {
 public:
  void Append(observe::Event event) override {
    {
      base::MutexLock lock(mutex_);
      events_.push_back(std::move(event));
    }
    added_.NotifyAll();
  }
  absl::StatusOr<std::vector<observe::Event>> List(const observe::EventFilter&) override {
    base::MutexLock lock(mutex_);
    return events_;
  }
  absl::StatusOr<std::vector<observe::Event>> WaitAfter(uint64_t, absl::Duration) override {
    return std::vector<observe::Event>();
  }
  uint64_t last_id() override { return 0; }
  absl::Status Flush(absl::Duration) override { return absl::OkStatus(); }

  size_t Count(const std::string& type) {
    base::MutexLock lock(mutex_);
    return CountLocked(type);
  }
  // Waits up to 20 s for the first event of the type.
  bool Await(const std::string& type) {
    base::MutexLock lock(mutex_);
    return added_.WaitFor(mutex_, absl::Seconds(20),
                          [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return CountLocked(type) > 0; });
  }

 private:
  size_t CountLocked(const std::string& type) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    size_t count = 0;
    for (const observe::Event& event : events_) count += event.type == type ? 1 : 0;
    return count;
  }
  base::Mutex mutex_;
  base::CondVar added_;
  std::vector<observe::Event> events_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::pg
