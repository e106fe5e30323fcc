#include "agent/observe/event_log.h"

#include <algorithm>
#include <deque>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/mutex.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"
#include "agent/base/utf8.h"
#include "agent/observe/event_store.h"

namespace metal::observe {
namespace {

constexpr size_t kQueueMost = 1024;
constexpr size_t kWindowMost = 4096;
constexpr size_t kTextMost = 4096;
constexpr size_t kAttributesMost = 32;
constexpr uint64_t kReserve =
    4096;  // ids kept free for a next life, so that none is given twice after a crash
constexpr absl::Duration kRetryAfter = absl::Seconds(1);
constexpr absl::Duration kCloseWithin = absl::Seconds(5);

base::LogLevel LevelOf(Severity severity) {
  switch (severity) {
    case Severity::kInfo:
      return base::LogLevel::kInfo;
    case Severity::kWarning:
      return base::LogLevel::kWarning;
    case Severity::kError:
    case Severity::kCritical:
      return base::LogLevel::kError;
  }
  return base::LogLevel::kInfo;
}

void BoundText(Event& event) {
  for (std::string* text : {&event.type, &event.subject, &event.message}) {
    *text = base::ToValidUtf8(*text, kTextMost);
  }
  std::map<std::string, std::string> bounded;
  for (const auto& [name, value] : event.attributes) {
    if (bounded.size() == kAttributesMost) break;
    bounded[base::ToValidUtf8(name, kTextMost)] = base::ToValidUtf8(value, kTextMost);
  }
  event.attributes = std::move(bounded);
}

bool Matches(const Event& event, const EventFilter& filter) {
  return event.id > filter.after_id && event.severity >= filter.min_severity &&
         event.type.starts_with(filter.type_prefix);
}

// Shared by the log and its writer thread, which outlives the log when the disk hangs.
class Core {
 public:
  Core(std::string path, base::Clock& clock, size_t keep)
      : path_(std::move(path)), clock_(clock), keep_(keep) {}

  absl::Status Open() {
    METAL_RETURN_IF_ERROR(base::MakeDirectories(base::DirectoryOf(path_)));
    std::string moved_to;
    METAL_RETURN_IF_ERROR(OpenStore(moved_to));
    EventFilter newest;
    newest.newest = true;
    newest.limit = kWindowMost;
    METAL_ASSIGN_OR_RETURN(const auto events, EventStore::List(path_, newest));
    {
      base::MutexLock lock(mutex_);
      window_.assign(events.begin(), events.end());
      last_id_ = store_->last_reserved_id();
      reserved_ = last_id_;
      if (events.size() == kWindowMost) forgotten_through_ = events.front().id - 1;
    }
    if (!moved_to.empty()) AppendMovedAside(moved_to);
    return absl::OkStatus();
  }

  void Append(Event event) {
    BoundText(event);
    if (event.time == absl::InfinitePast() || event.time == absl::InfiniteFuture())
      event.time = clock_.Now();
    base::Log(LevelOf(event.severity), "event={} subject=\"{}\" {}", event.type, event.subject,
              event.message);
    base::MutexLock lock(mutex_);
    AppendLocked(std::move(event));
  }

  absl::StatusOr<std::vector<Event>> List(const EventFilter& filter) {
    std::map<uint64_t, Event> found;  // what is not stored yet, then what is
    {
      base::MutexLock lock(mutex_);
      for (const std::deque<Event>* events : {&storing_, &queue_}) {
        for (const Event& event : *events) {
          if (Matches(event, filter)) found.emplace(event.id, event);
        }
      }
    }
    METAL_ASSIGN_OR_RETURN(auto stored, EventStore::List(path_, filter));
    for (Event& event : stored) found.emplace(event.id, std::move(event));
    while (found.size() > filter.limit)
      found.erase(filter.newest ? found.begin() : std::prev(found.end()));
    std::vector<Event> events;
    for (auto& [id, event] : found) events.push_back(std::move(event));
    return events;
  }

  absl::StatusOr<std::vector<Event>> WaitAfter(uint64_t after_id, absl::Duration timeout) {
    base::MutexLock lock(mutex_);
    if (after_id < forgotten_through_ || after_id > last_id_) {
      return base::WithReason(
          base::Error(absl::StatusCode::kOutOfRange,
                      "events after {}: only those after {} to {} are at hand. HINT: list events, "
                      "then watch after "
                      "the last id",
                      after_id, forgotten_through_, last_id_),
          {"RESYNC_REQUIRED",
           {{"after_id", fmt::to_string(after_id)}, {"last_id", fmt::to_string(last_id_)}}});
    }
    appended_.WaitFor(mutex_, timeout, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return !window_.empty() && window_.back().id > after_id;
    });
    const auto first =
        std::upper_bound(window_.begin(), window_.end(), after_id,
                         [](uint64_t id, const Event& event) { return id < event.id; });
    return std::vector<Event>(first, window_.end());
  }

  uint64_t last_id() {
    base::MutexLock lock(mutex_);
    return last_id_;
  }

  absl::Status Flush(absl::Duration timeout) {
    base::MutexLock lock(mutex_);
    const uint64_t wanted = last_id_;
    const bool done = stored_.WaitFor(mutex_, timeout, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return NothingUnsavedThrough(wanted);
    });
    if (done) return absl::OkStatus();
    if (!store_status_.ok()) return base::Annotate(store_status_, "flush events");
    return base::Error(absl::StatusCode::kDeadlineExceeded, "flush events to {}: not done after {}",
                       path_, absl::FormatDuration(timeout));
  }

  // The writer thread: stores batches until told to stop and nothing is left (or the last try
  // failed).
  void WriterLoop() {
    bool stop = false;
    while (!stop) {
      absl::Status status = WriteBatch(stop);
      if (status.ok()) continue;
      base::LogError("{}", std::string(status.message()));
      if (status.code() == absl::StatusCode::kDataLoss) Reopen();
      base::MutexLock lock(mutex_);
      if (stopping_) break;
      work_.WaitFor(mutex_, kRetryAfter,
                    [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_; });
    }
    store_.reset();
    base::MutexLock lock(mutex_);
    finished_ = true;
    stored_.NotifyAll();
  }

  void Stop() {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    work_.NotifyAll();
  }
  bool WaitFinished() {
    base::MutexLock lock(mutex_);
    return stored_.WaitFor(mutex_, kCloseWithin,
                           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return finished_; });
  }

 private:
  absl::Status OpenStore(std::string& moved_to) {
    auto opened = EventStore::Open(path_, keep_);
    if (opened.status().code() == absl::StatusCode::kDataLoss) {
      base::LogError("{}", std::string(opened.status().message()));
      METAL_ASSIGN_OR_RETURN(moved_to, EventStore::MoveAside(path_, clock_.Now()));
      opened = EventStore::Open(path_, keep_);
    }
    METAL_RETURN_IF_ERROR(opened.status());
    store_ = *std::move(opened);
    return absl::OkStatus();
  }

  void AppendMovedAside(const std::string& moved_to) {
    Event event;
    event.time = absl::InfinitePast();
    event.severity = Severity::kError;
    event.type = "events.corrupt";
    event.subject = path_;
    event.message = "the event log was corrupt and was moved aside; a new one was started";
    event.attributes["moved_to"] = moved_to;
    Append(std::move(event));
  }

  // After the store turned out to be corrupt: the pending events go to a new one.
  void Reopen() {
    store_.reset();
    std::string moved_to;
    const absl::Status status = OpenStore(moved_to);
    if (!status.ok()) base::LogError("{}", std::string(status.message()));
    if (!moved_to.empty()) AppendMovedAside(moved_to);
  }

  void AppendLocked(Event event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    // What the store keeps: an event does not change when it is written.
    event.time = absl::FromUnixMicros(absl::ToUnixMicros(event.time));
    event.id = ++last_id_;
    queue_.push_back(event);
    if (queue_.size() > kQueueMost) {
      queue_.pop_front();
      ++dropped_;
    }
    window_.push_back(std::move(event));
    if (window_.size() > kWindowMost) {
      forgotten_through_ = window_.front().id;
      window_.pop_front();
    }
    appended_.NotifyAll();
    work_.NotifyAll();
  }

  bool NothingUnsavedThrough(uint64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return (storing_.empty() || storing_.front().id > id) &&
           (queue_.empty() || queue_.front().id > id);
  }

  // Waits for events and stores them. Sets `stop` when all is stored and the log is closing.
  absl::Status WriteBatch(bool& stop) {
    uint64_t reserve = 0;
    bool closing = false;
    std::vector<Event> batch;
    {
      base::MutexLock lock(mutex_);
      work_.WaitFor(mutex_, absl::Hours(1), [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
        return stopping_ || !queue_.empty() || !storing_.empty();
      });
      for (; !queue_.empty(); queue_.pop_front()) storing_.push_back(std::move(queue_.front()));
      // What an earlier try could not store counts too: the oldest go first.
      for (; storing_.size() > kQueueMost; storing_.pop_front()) ++dropped_;
      closing = stopping_;
      // On a clean close the next life goes on at the next id; else some ids are left for what may
      // still be given out.
      if (closing)
        reserve = last_id_;
      else
        reserve = reserved_ < last_id_ + kReserve / 2 ? last_id_ + kReserve : reserved_;
      batch.assign(storing_.begin(), storing_.end());
    }
    if (batch.empty() && !closing) return absl::OkStatus();
    if (store_ == nullptr) {
      std::string moved_to;
      METAL_RETURN_IF_ERROR(OpenStore(moved_to));
    }
    const absl::Status status = store_->Store(batch, reserve);
    base::MutexLock lock(mutex_);
    store_status_ = status;
    if (!status.ok()) return status;
    reserved_ = reserve;
    storing_.clear();
    stop = closing && queue_.empty() && dropped_ == 0;
    if (dropped_ != 0) AppendDropped();
    stored_.NotifyAll();
    return absl::OkStatus();
  }

  void AppendDropped() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Event event;
    event.time = clock_.Now();
    event.severity = Severity::kWarning;
    event.type = "events.dropped";
    event.subject = path_;
    event.message =
        fmt::format("{} events were dropped because the event log could not be written", dropped_);
    event.attributes["count"] = fmt::to_string(dropped_);
    dropped_ = 0;
    AppendLocked(std::move(event));
  }

  const std::string path_;
  base::Clock& clock_;
  const size_t keep_;
  std::unique_ptr<EventStore> store_;  // of the opening thread, then of the writer thread

  base::Mutex mutex_;
  base::CondVar work_, appended_, stored_;
  std::deque<Event> window_ ABSL_GUARDED_BY(mutex_);   // the newest, stored or not
  std::deque<Event> queue_ ABSL_GUARDED_BY(mutex_);    // to be stored
  std::deque<Event> storing_ ABSL_GUARDED_BY(mutex_);  // being stored
  uint64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t reserved_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t forgotten_through_ ABSL_GUARDED_BY(mutex_) =
      0;  // events up to this id are not in the window
  uint64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status store_status_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

class SqliteEventLog final : public EventLog {
 public:
  explicit SqliteEventLog(std::shared_ptr<Core> core)
      : core_(std::move(core)), writer_("events", [shared = core_] { shared->WriterLoop(); }) {}
  ~SqliteEventLog() override {
    core_->Stop();
    if (!core_->WaitFinished()) writer_.Detach();  // it hangs with the disk
  }
  void Append(Event event) override { core_->Append(std::move(event)); }
  absl::StatusOr<std::vector<Event>> List(const EventFilter& filter) override {
    return core_->List(filter);
  }
  absl::StatusOr<std::vector<Event>> WaitAfter(uint64_t after_id, absl::Duration timeout) override {
    return core_->WaitAfter(after_id, timeout);
  }
  uint64_t last_id() override { return core_->last_id(); }
  absl::Status Flush(absl::Duration timeout) override { return core_->Flush(timeout); }

 private:
  std::shared_ptr<Core> core_;
  base::Thread writer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EventLog>> OpenEventLog(const std::string& path, base::Clock& clock,
                                                       size_t keep) {
  auto core = std::make_shared<Core>(path, clock, keep);
  METAL_RETURN_IF_ERROR(core->Open());
  return std::make_unique<SqliteEventLog>(std::move(core));
}

}  // namespace metal::observe
