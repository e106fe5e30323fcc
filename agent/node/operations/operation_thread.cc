// What OperationManager does on an operation's own thread: journal, body, end; and the publisher
// thread.
#include <malloc.h>

#include <cerrno>

#include "agent/base/fault_point.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/node/emit.h"
#include "agent/node/operations/operation_entry.h"
#include "agent/node/operations/operations.h"

namespace metal::node {

namespace {

constexpr absl::Duration kPublishInterval = absl::Seconds(1);
constexpr int kFinishTries = 3;
constexpr absl::Duration kLong = absl::Seconds(1);

std::string Describe(const Operation& operation) {
  return operation.spec.subject.empty()
             ? operation.spec.kind
             : fmt::format("{} of {}", operation.spec.kind, operation.spec.subject);
}

void Announce(observe::EventLog& events, observe::Severity severity, std::string type,
              const Operation& operation, std::string message) {
  Emit(events, severity, std::move(type), operation.name, std::move(message),
       {{"kind", operation.spec.kind},
        {"subject", operation.spec.subject},
        {"caller", operation.spec.request.caller},
        {"term", fmt::format("{}", operation.spec.term)}});
}

void AnnounceEnd(observe::EventLog& events, const Operation& operation) {
  const std::string took =
      operation.start_time == absl::InfinitePast()
          ? ""
          : " after " + absl::FormatDuration(absl::Trunc(operation.end_time - operation.start_time,
                                                         absl::Milliseconds(1)));
  const std::string what = Describe(operation);
  switch (operation.state) {
    case OperationState::kSucceeded:
      Announce(events, observe::Severity::kInfo, "operation.finished", operation,
               fmt::format("{} finished{}", what, took));
      return;
    case OperationState::kCancelled:
      Announce(events, observe::Severity::kWarning, "operation.cancelled", operation,
               fmt::format("{} was cancelled{}", what, took));
      return;
    default:
      Announce(events, observe::Severity::kError, "operation.failed", operation,
               fmt::format("{} failed{}: {}", what, took, std::string(operation.error.message())));
  }
}

}  // namespace

absl::StatusOr<OperationResult> OperationManager::RunBody(const EntryPtr& entry) {
  METAL_RETURN_IF_ERROR(base::FaultPoint("operations.journaled"));
  const std::function<void(const std::map<std::string, std::string>&)> publish =
      [this, &entry](const std::map<std::string, std::string>& facts) {
        base::MutexLock lock(mutex_);
        for (const auto& [name, value] : facts) entry->operation.result.values[name] = value;
        BumpLocked(*entry);
        changed_.NotifyAll();
      };
  OperationContext context{entry->operation.name, entry->operation.spec, *entry->progress, publish};
  // These two do not change any more.
  const std::string& kind = entry->operation.spec.kind;
  const std::string& name = entry->operation.name;
  if (options_.before_body) options_.before_body(kind, name);
  absl::StatusOr<OperationResult> result = entry->body(context);
  if (options_.after_body) options_.after_body(kind, name);
  METAL_RETURN_IF_ERROR(result.status());
  METAL_RETURN_IF_ERROR(base::FaultPoint("operations.before_finish"));
  return result;
}

void OperationManager::Execute(const EntryPtr& entry) {
  const base::MonotonicTime begin = clock_.Monotonic();
  if (Journalize(entry)) {
    absl::StatusOr<OperationResult> outcome = RunBody(entry);
    Finish(entry, std::move(outcome));
  }
  Leave(entry);
  // What a backup or a restore had, malloc would keep for as long as the agent runs.
  if (clock_.Monotonic() - begin >= kLong) malloc_trim(0);
}

void OperationManager::Leave(const EntryPtr& entry) {
  // The body may own large things; nobody needs it any more.
  OperationBody body;
  base::MutexLock lock(mutex_);
  body = std::move(entry->body);
  entry->action.Release();
  entry->progress.reset();
  finished_.push_back(std::move(entry->thread));
  --running_;
  publish_ = true;
  changed_.NotifyAll();
  published_.NotifyAll();
}

bool OperationManager::Journalize(const EntryPtr& entry) {
  Operation running;
  {
    base::MutexLock lock(mutex_);
    running = entry->operation;
  }
  running.state = OperationState::kRunning;
  running.start_time = running.update_time = clock_.Now();
  running.cancel_requested = false;
  absl::Status status = base::FaultPoint("operations.before_journal");
  const RequestContext& request = running.spec.request;
  if (status.ok() && !request.request_id.empty()) {
    // A short call (RunOnce) has no operation: only the journal knows its id.
    status = RecallAnswer(request, running.spec.kind).status();
  }
  if (status.ok()) status = journal_->Put(running);
  bool abandoned = false;
  {
    base::MutexLock lock(mutex_);
    abandoned = entry->abandoned;
    // Before anyone learns of it: who was refused may ask for something else at once.
    if (!status.ok() || abandoned) entry->action.Release();
    if (!status.ok()) {
      entry->refusal = base::Annotate(status, running.spec.kind + " refused");
      entries_.erase(running.name);
      by_request_.erase(request.request_id);
    } else if (abandoned) {
      entries_.erase(running.name);
      by_request_.erase(request.request_id);
    } else {
      running.cancel_requested = entry->operation.cancel_requested;
      entry->operation.state = running.state;
      entry->operation.start_time = running.start_time;
      entry->operation.update_time = running.update_time;
      entry->admitted = true;
      BumpLocked(*entry);
    }
    changed_.NotifyAll();
  }
  if (!status.ok()) {
    Announce(events_, observe::Severity::kError, "operation.refused", running,
             fmt::format("{} refused: {}", Describe(running), std::string(status.message())));
    return false;
  }
  if (abandoned) {
    // Its caller was told that it does not run, so it must not, and the journal must not claim that
    // it did.
    if (const absl::Status removed = journal_->Remove(running.name); !removed.ok()) {
      base::LogError("remove abandoned {}: {}", running.name, std::string(removed.message()));
    }
    return false;
  }
  Announce(events_, observe::Severity::kInfo,
           entry->resumed ? "operation.resumed" : "operation.started", running,
           fmt::format(
               "{} {}{}", Describe(running), entry->resumed ? "resumed" : "started",
               running.spec.request.caller.empty() ? "" : " for " + running.spec.request.caller));
  return true;
}

void OperationManager::PhaseChanged(const EntryPtr& entry) {
  Operation view;
  {
    base::MutexLock lock(mutex_);
    entry->operation.update_time = clock_.Now();
    BumpLocked(*entry);
    view = ViewLocked(*entry);
    changed_.NotifyAll();
  }
  // The phase in the journal only says where a crash happened: not worth failing the operation.
  if (const absl::Status status = journal_->PutPhase(view); !status.ok()) {
    base::LogWarning("journal phase of {}: {}", view.name, std::string(status.message()));
  }
}

void OperationManager::Finish(const EntryPtr& entry, absl::StatusOr<OperationResult> outcome) {
  Operation final_state;
  bool interrupted = false;
  {
    base::MutexLock lock(mutex_);
    final_state = ViewLocked(*entry);
    interrupted = stopping_ && !final_state.cancel_requested && absl::IsCancelled(outcome.status());
  }
  if (interrupted) {
    // Stays unfinished in the journal: the next start resumes it or reports it.
    if (final_state.spec.parameters.erase(kResumedParameter) == 0) return;
    if (const absl::Status stored = journal_->Put(final_state); !stored.ok()) {
      base::LogWarning("journal {}: {}", final_state.name, std::string(stored.message()));
    }
    return;
  }
  final_state.end_time = final_state.update_time = clock_.Now();
  if (outcome.ok()) {
    final_state.state = OperationState::kSucceeded;
    final_state.result = *std::move(outcome);
  } else {
    final_state.error = outcome.status();
    const bool cancelled = absl::IsCancelled(final_state.error) && final_state.cancel_requested;
    final_state.state = cancelled ? OperationState::kCancelled : OperationState::kFailed;
    if (cancelled) {
      final_state.error =
          base::WithReason(std::move(final_state.error), {.reason = "CANCELLED", .metadata = {}});
    }
  }
  Settle(entry, std::move(final_state));
  TrimJournal();
}

void OperationManager::Settle(const EntryPtr& entry, Operation final_state) {
  absl::Status stored;
  for (int attempt = 1; attempt <= kFinishTries; ++attempt) {
    stored = journal_->Put(final_state);
    if (stored.ok()) break;
    base::MutexLock lock(mutex_);
    if (attempt < kFinishTries && !stopping_) changed_.WaitFor(mutex_, absl::Seconds(1));
  }
  if (!stored.ok()) {
    Emit(events_, observe::Severity::kError, "operation.journal_failed", final_state.name,
         fmt::format("the end of {} is not in the journal: {}", Describe(final_state),
                     std::string(stored.message())));
  }
  (void)base::FaultPoint("operations.finished");
  AnnounceEnd(events_, final_state);
  base::MutexLock lock(mutex_);
  entry->action
      .Release();  // before anyone can see the end: who waits for it may start the next one
  const bool cancel_requested = entry->operation.cancel_requested;
  entry->operation = std::move(final_state);
  entry->operation.cancel_requested = cancel_requested;
  BumpLocked(*entry);
  changed_.NotifyAll();
}

void OperationManager::TrimJournal() {
  std::vector<std::string> old;
  {
    base::MutexLock lock(mutex_);
    for (auto it = entries_.begin(); it != entries_.end() && entries_.size() > options_.keep;) {
      if (!it->second->operation.done() || it->second->live()) {
        ++it;
        continue;
      }
      old.push_back(it->first);
      const auto request = by_request_.find(it->second->operation.spec.request.request_id);
      if (request != by_request_.end() && request->second == it->first) by_request_.erase(request);
      it = entries_.erase(it);
    }
  }
  for (const std::string& name : old) {
    if (const absl::Status removed = journal_->Remove(name); !removed.ok()) {
      base::LogWarning("trim {}: {}", name, std::string(removed.message()));
      return;
    }
  }
}

void OperationManager::PublishLoop() {
  while (true) {
    std::vector<base::Thread> finished;
    {
      base::MutexLock lock(mutex_);
      const auto due = [this] { return publish_ || stopping_; };
      if (running_ > 0) {
        published_.WaitFor(mutex_, kPublishInterval, due);
      } else {
        while (!due()) published_.Wait(mutex_);
      }
      if (stopping_) return;
      publish_ = false;
      finished = std::move(finished_);
      finished_.clear();
    }
    for (base::Thread& thread : finished) thread.Join();
    PublishBoard();
  }
}

void OperationManager::PublishBoard() {
  observe::OperationSection section;
  section.time = {clock_.Now(), clock_.Monotonic()};
  {
    base::MutexLock lock(mutex_);
    Entry* shown = nullptr;  // an action before a backup before a reader; the oldest of them
    for (const auto& [name, entry] : entries_) {
      if (!entry->live() || entry->operation.done()) continue;
      if (shown == nullptr || entry->operation.spec.lane < shown->operation.spec.lane) {
        shown = entry.get();
      }
    }
    if (shown != nullptr) {
      const Operation view = ViewLocked(*shown);
      section.running = true;
      section.name = view.name;
      section.kind = view.spec.kind;
      section.phase = view.progress.phase;
      section.started = view.start_time;
      section.done_bytes = view.progress.done_bytes;
      section.total_bytes = view.progress.total_bytes;
      section.bytes_per_second = view.progress.bytes_per_second;
      section.eta = view.progress.eta;
    }
  }
  board_.Update([&](observe::NodeStatus& status) { status.operation = section; });
}

}  // namespace metal::node
