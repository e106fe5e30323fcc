// RecordedEvents: an event log in memory, for tests that look at what was reported.
// Threading: thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/mutex.h"
#include "agent/observe/event_log.h"

namespace metal::testing {

class RecordedEvents final : public observe::EventLog {
 public:
  void Append(observe::Event event) override {
    {
      base::MutexLock lock(mutex_);
      event.id = events_.size() + 1;
      events_.push_back(std::move(event));
    }
    added_.NotifyAll();
  }
  // All of them, whatever the filter.
  absl::StatusOr<std::vector<observe::Event>> List(const observe::EventFilter&) override {
    return events();
  }
  // Those after it, at once.
  absl::StatusOr<std::vector<observe::Event>> WaitAfter(uint64_t after, absl::Duration) override {
    std::vector<observe::Event> found = events();
    found.erase(found.begin(),
                found.begin() + static_cast<ptrdiff_t>(std::min<size_t>(after, found.size())));
    return found;
  }
  uint64_t last_id() override { return events().size(); }
  absl::Status Flush(absl::Duration) override { return absl::OkStatus(); }

  std::vector<observe::Event> events() {
    base::MutexLock lock(mutex_);
    return events_;
  }
  std::vector<std::string> types() {
    std::vector<std::string> result;
    for (const observe::Event& event : events()) result.push_back(event.type);
    return result;
  }
  size_t Count(std::string_view type) {
    base::MutexLock lock(mutex_);
    return CountLocked(type);
  }
  // Of the first event of the type; empty without one.
  std::string Attribute(std::string_view type, const std::string& name) {
    for (const observe::Event& event : events()) {
      const auto found = event.attributes.find(name);
      if (event.type == type) return found == event.attributes.end() ? "" : found->second;
    }
    return "";
  }
  // Waits up to 20 s for that many events of the type.
  bool Await(std::string_view type, size_t count = 1) {
    base::MutexLock lock(mutex_);
    return added_.WaitFor(mutex_, absl::Seconds(20), [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return CountLocked(type) >= count;
    });
  }

 private:
  size_t CountLocked(std::string_view type) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return static_cast<size_t>(
        std::ranges::count(events_, type, [](const auto& event) { return event.type; }));
  }

  base::Mutex mutex_;
  base::CondVar added_;
  std::vector<observe::Event> events_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::testing
