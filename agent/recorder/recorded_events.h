// RecordedEvents: an event log whose events are also put into the flight recorder.
// Threading: thread-safe, as the log that it stands before.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "agent/observe/event_log.h"
#include "agent/recorder/recorder.h"

namespace metal::recorder {

class RecordedEvents final : public observe::EventLog {
 public:
  // `seen` (may be null) is called with each event; it must not block.
  RecordedEvents(std::unique_ptr<observe::EventLog> log, std::shared_ptr<Recorder> recorder,
                 std::function<void(const observe::Event&)> seen)
      : log_(std::move(log)), recorder_(std::move(recorder)), seen_(std::move(seen)) {}

  void Append(observe::Event event) override;
  absl::StatusOr<std::vector<observe::Event>> List(const observe::EventFilter& filter) override {
    return log_->List(filter);
  }
  absl::StatusOr<std::vector<observe::Event>> WaitAfter(uint64_t after_id,
                                                        absl::Duration timeout) override {
    return log_->WaitAfter(after_id, timeout);
  }
  uint64_t last_id() override { return log_->last_id(); }
  absl::Status Flush(absl::Duration timeout) override { return log_->Flush(timeout); }

 private:
  const std::unique_ptr<observe::EventLog> log_;
  const std::shared_ptr<Recorder> recorder_;
  const std::function<void(const observe::Event&)> seen_;
};

}  // namespace metal::recorder
