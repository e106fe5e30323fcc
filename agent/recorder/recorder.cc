#include "agent/recorder/recorder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "agent/base/log.h"
#include "agent/base/mutex.h"
#include "agent/recorder/ring_file.h"

namespace metal::recorder {
namespace {

constexpr absl::Duration kStopWithin = absl::Milliseconds(500);

// Frames in memory, one after another; never grows beyond what it was made with.
class FrameBuffer {
 public:
  explicit FrameBuffer(size_t most) { bytes_.resize(most); }

  bool Add(const Entry& entry, const FrameTimes& times) {
    const size_t frame = FrameSize(entry.payload().size());
    if (used_ + frame > bytes_.size()) return false;
    EncodeFrame(entry, times, std::span(bytes_).subspan(used_, frame));
    used_ += frame;
    ++count_;
    return true;
  }
  std::span<std::byte> frames() { return std::span(bytes_).first(used_); }
  std::span<const std::byte> frames() const { return std::span(bytes_).first(used_); }
  uint64_t count() const { return count_; }
  void Clear() { used_ = count_ = 0; }
  void CopyFrom(const FrameBuffer& other) {
    std::ranges::copy(other.frames(), bytes_.begin());
    used_ = other.used_;
    count_ = other.count_;
  }

 private:
  std::vector<std::byte> bytes_;
  size_t used_ = 0;
  uint64_t count_ = 0;
};

void Decode(std::span<const std::byte> frames, std::vector<Record>& records) {
  while (const auto size = FrameSizeAt(frames)) {
    records.push_back(DecodeFrame(frames.first(*size)));
    frames = frames.subspan(*size);
  }
}

}  // namespace

// Shared with the thread, which may outlive the recorder.
class Recorder::Core {
 public:
  Core(RecorderOptions options, base::Clock& clock)
      : options_(std::move(options)),
        clock_(clock),
        filling_(options_.queue_bytes),
        writing_(options_.queue_bytes),
        copy_(options_.queue_bytes) {}

  void Put(const Entry& entry) {
    const FrameTimes times = Now();
    base::MutexLock lock(mutex_);
    ++state_.put;
    if (!filling_.Add(entry, times)) {
      ++state_.dropped;
      ++untold_;
      return;
    }
    if (filling_.count() == 1) oldest_ = times.since_boot;
    changed_.NotifyOne();
  }

  RecorderState State() {
    const absl::Duration now = clock_.SinceBoot().since_start;
    base::MutexLock lock(mutex_);
    RecorderState state = state_;
    if (being_written_) {
      state.behind = now - *being_written_;
    } else if (filling_.count() > 0) {
      state.behind = now - oldest_;
    }
    return state;
  }

  std::vector<Record> Waiting() {
    std::vector<Record> records;
    base::MutexLock lock(mutex_);
    if (being_written_) Decode(copy_.frames(), records);
    Decode(filling_.frames(), records);
    return records;
  }

  bool Flush(absl::Duration timeout) {
    base::MutexLock lock(mutex_);
    const uint64_t wanted = state_.put;
    return written_.WaitFor(mutex_, timeout,
                            [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return settled_ >= wanted; });
  }

  void AskToStop() {
    base::MutexLock lock(mutex_);
    stop_ = true;
    changed_.NotifyOne();
  }

  bool WaitFinished(absl::Duration timeout) {
    base::MutexLock lock(mutex_);
    return written_.WaitFor(mutex_, timeout,
                            [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return finished_; });
  }

  void Run() {
    while (Take()) Write();
    if (ring_) ReportOnce(ring_->Sync());
    base::MutexLock lock(mutex_);
    finished_ = true;
    written_.NotifyAll();
  }

  const std::string& path() const { return options_.path; }

 private:
  FrameTimes Now() { return {clock_.Now(), clock_.SinceBoot().since_start}; }

  // Waits for records, and moves them to writing_; syncs meanwhile what is due. False: the end.
  bool Take() {
    while (true) {
      bool sync = false;
      {
        base::MutexLock lock(mutex_);
        const auto due = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
          return stop_ || filling_.count() > 0;
        };
        if (unsynced_) {
          sync = !changed_.WaitFor(mutex_, options_.sync_interval, due);
        } else {
          while (!due()) changed_.Wait(mutex_);
        }
        if (filling_.count() > 0) {
          TakeLocked();
          return true;
        }
        if (stop_ && !sync) return false;
      }
      if (sync) Sync();
    }
  }

  void TakeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    settling_ = state_.put;
    std::swap(filling_, writing_);
    filling_.Clear();
    copy_.CopyFrom(writing_);  // for Waiting: the thread seals writing_ without the mutex
    being_written_ = oldest_;
    if (untold_ == 0 || !ring_) return;
    Entry entry(RecordKind::kDropped);
    entry.Add("count", static_cast<int64_t>(untold_));
    if (filling_.Add(entry, Now())) {
      oldest_ = clock_.SinceBoot().since_start;
      ++state_.put;
      untold_ = 0;
    }
  }

  // Hands writing_ to the ring.
  void Write() {
    absl::Status status = Open();
    if (status.ok()) status = ring_->Append(writing_.frames());
    if (!status.ok()) ring_.reset();
    ReportOnce(status);
    const base::MonotonicTime now = clock_.Monotonic();
    {
      base::MutexLock lock(mutex_);
      if (status.ok()) {
        state_.written += writing_.count();
        if (!unsynced_) unsynced_ = now;
      } else {
        state_.dropped += writing_.count();
        untold_ += writing_.count();
      }
      settled_ = settling_;
      being_written_.reset();
      written_.NotifyAll();
    }
    // Records may come without a pause.
    if (unsynced_ && now - *unsynced_ >= options_.sync_interval) Sync();
  }

  absl::Status Open() {
    if (ring_) return absl::OkStatus();
    const base::MonotonicTime now = clock_.Monotonic();
    if (failed_ && now - *failed_ < options_.retry_after) return last_error_;
    auto ring = RingWriter::Open(options_.path, options_.size);
    if (!ring.ok()) {
      failed_ = now;
      return ring.status();
    }
    ring_ = *std::move(ring);
    failed_.reset();
    return absl::OkStatus();
  }

  void Sync() {
    const absl::Status status = ring_ ? ring_->Sync() : absl::OkStatus();
    unsynced_.reset();
    if (!status.ok()) ring_.reset();
    ReportOnce(status);
  }

  // Tells a change between working and failing.
  void ReportOnce(const absl::Status& status) {
    if (status == last_error_) return;
    last_error_ = status;
    const std::string message(status.message());
    if (!status.ok()) {
      base::LogWarning("event=recorder.failed message=\"{}\"", message);
      if (!failed_) failed_ = clock_.Monotonic();
    } else {
      base::LogInfo("event=recorder.works path={}", options_.path);
    }
    base::MutexLock lock(mutex_);
    state_.error = message;
  }

  const RecorderOptions options_;
  base::Clock& clock_;

  // The thread's own.
  std::optional<RingWriter> ring_;
  std::optional<base::MonotonicTime> failed_;    // when it last failed to open
  std::optional<base::MonotonicTime> unsynced_;  // since when something is not on the disk
  absl::Status last_error_;

  base::Mutex mutex_;
  base::CondVar changed_, written_;
  FrameBuffer filling_ ABSL_GUARDED_BY(mutex_);
  FrameBuffer writing_;  // the thread's, but for the exchange
  FrameBuffer copy_ ABSL_GUARDED_BY(mutex_);
  absl::Duration oldest_ ABSL_GUARDED_BY(mutex_);  // of filling_
  std::optional<absl::Duration> being_written_ ABSL_GUARDED_BY(mutex_);
  uint64_t untold_ ABSL_GUARDED_BY(mutex_) = 0;  // dropped, and no record says so yet
  uint64_t settling_ = 0;  // the thread's: records given before it took the last ones
  uint64_t settled_ ABSL_GUARDED_BY(mutex_) = 0;  // of those, whose fate is known
  RecorderState state_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

Recorder::Recorder(RecorderOptions options, base::Clock& clock)
    : core_(std::make_shared<Core>(std::move(options), clock)),
      thread_("recorder", [core = core_] { core->Run(); }) {}

Recorder::~Recorder() {
  core_->AskToStop();
  if (!core_->WaitFinished(kStopWithin)) thread_.Detach();  // it hangs with its disk
}

void Recorder::Put(const Entry& entry) { core_->Put(entry); }
RecorderState Recorder::State() const { return core_->State(); }
std::vector<Record> Recorder::Waiting() const { return core_->Waiting(); }
bool Recorder::Flush(absl::Duration timeout) { return core_->Flush(timeout); }
const std::string& Recorder::path() const { return core_->path(); }

}  // namespace metal::recorder
