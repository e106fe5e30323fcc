#include "agent/recorder/record_stream.h"

#include <utility>

#include "agent/base/mutex.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"
#include "agent/recorder/patience.h"
#include "agent/recorder/ring_file.h"

namespace metal::recorder {

struct RecordStream::State {
  base::Mutex mutex;
  base::CondVar changed;
  std::vector<Record> ready ABSL_GUARDED_BY(mutex);
  bool finished ABSL_GUARDED_BY(mutex) = false;
  bool abandoned ABSL_GUARDED_BY(mutex) = false;
  absl::Status status ABSL_GUARDED_BY(mutex);

  // Hands a batch over once the one before was taken. False: nobody wants it.
  bool Give(std::vector<Record>& batch) {
    base::MutexLock lock(mutex);
    while (!ready.empty() && !abandoned) changed.Wait(mutex);
    if (abandoned) return false;
    ready = std::exchange(batch, {});
    changed.NotifyAll();
    return true;
  }
};

RecordStream::RecordStream(const std::string& path, absl::Time since)
    : state_(std::make_shared<State>()) {
  base::Thread thread("rec-reader", [state = state_, path, since] {
    std::vector<Record> batch;
    const absl::Status status = ReadRing(path, [&](const Record& record) {
      if (record.time < since) return true;
      batch.push_back(record);
      return batch.size() < kBatch || state->Give(batch);
    });
    if (!batch.empty()) state->Give(batch);
    base::MutexLock lock(state->mutex);
    state->status = status;
    state->finished = true;
    state->changed.NotifyAll();
  });
  thread.Detach();
}

RecordStream::~RecordStream() {
  base::MutexLock lock(state_->mutex);
  state_->abandoned = true;
  state_->changed.NotifyAll();
}

absl::StatusOr<std::vector<Record>> RecordStream::Next(absl::Duration patience,
                                                       const std::function<bool()>& stop) {
  base::MutexLock lock(state_->mutex);
  const bool come = WaitPatiently(state_->mutex, state_->changed, patience, stop,
                                  [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
                                    return !state_->ready.empty() || state_->finished;
                                  });
  if (!come) {
    return base::Error(absl::StatusCode::kDeadlineExceeded,
                       "the recorder's disk did not answer within {}",
                       absl::FormatDuration(patience));
  }
  std::vector<Record> batch = std::exchange(state_->ready, {});
  state_->changed.NotifyAll();
  if (batch.empty()) METAL_RETURN_IF_ERROR(state_->status);
  return batch;
}

}  // namespace metal::recorder
