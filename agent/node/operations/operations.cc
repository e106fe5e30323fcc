#include "agent/node/operations/operations.h"

#include <cstdio>
#include <optional>

#include "agent/base/fault_point.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/base/text_map.h"
#include "agent/node/emit.h"
#include "agent/node/operations/operation_entry.h"

namespace metal::node {

namespace {

constexpr int kReaderLimit = 4;

// Without a hash from the caller the spec itself is the body.
std::string BodyOf(const OperationSpec& spec) {
  return fmt::format("{}\n{}\n{}\n{}", spec.kind, spec.subject, spec.term,
                     base::EncodeMap(spec.parameters));
}

}  // namespace

absl::StatusOr<std::unique_ptr<OperationManager>> OperationManager::Open(
    Options options, base::Clock& clock, observe::StatusBoard& board, observe::EventLog& events) {
  auto journal = OperationJournal::Open(options.path);
  if (absl::IsDataLoss(journal.status())) {
    const std::string aside =
        fmt::format("{}.corrupt-{}", options.path, absl::ToUnixSeconds(clock.Now()));
    for (const char* suffix : {"", "-wal", "-shm"}) {
      const std::string from = options.path + suffix;
      if (::rename(from.c_str(), (aside + suffix).c_str()) != 0 && errno != ENOENT) {
        return base::ErrnoStatus(errno, "move aside the corrupt journal", from);
      }
    }
    Emit(events, observe::Severity::kError, "operation.journal_corrupt", options.path,
         fmt::format("{}; moved to {}: earlier operations are lost",
                     std::string(journal.status().message()), aside));
    journal = OperationJournal::Open(options.path);
  }
  if (!journal.ok()) return base::Annotate(journal.status(), options.path);
  std::unique_ptr<OperationManager> manager(
      new OperationManager(std::move(options), *std::move(journal), clock, board, events));
  METAL_RETURN_IF_ERROR(manager->Load());
  return manager;
}

OperationManager::OperationManager(Options options, std::unique_ptr<OperationJournal> journal,
                                   base::Clock& clock, observe::StatusBoard& board,
                                   observe::EventLog& events)
    : options_(std::move(options)),
      clock_(clock),
      board_(board),
      events_(events),
      action_lock_(clock),
      journal_(std::move(journal)) {
  publisher_ = base::Thread("operations", [this] { PublishLoop(); });
}

OperationManager::~OperationManager() {
  Drain();
  publisher_.Join();
}

void OperationManager::Drain() {
  Shutdown();
  std::vector<base::Thread> threads;
  {
    base::MutexLock lock(mutex_);
    while (running_ > 0) changed_.Wait(mutex_);
    threads = std::move(finished_);
    finished_.clear();
  }
  for (base::Thread& thread : threads) thread.Join();
}

void OperationManager::Shutdown() {
  base::MutexLock lock(mutex_);
  stopping_ = true;
  for (auto& [name, entry] : entries_) {
    if (entry->live()) entry->progress->RequestCancel();
  }
  changed_.NotifyAll();
  published_.NotifyAll();
}

absl::Status OperationManager::Load() {
  METAL_ASSIGN_OR_RETURN(std::vector<Operation> operations, journal_->LoadAll());
  base::MutexLock lock(mutex_);
  for (Operation& operation : operations) {
    auto entry = std::make_shared<Entry>();
    entry->admitted = true;
    operation.revision = ++revision_;
    const std::string& request_id = operation.spec.request.request_id;
    if (!request_id.empty()) by_request_[request_id] = operation.name;
    const std::string name = operation.name;
    entry->operation = std::move(operation);
    entries_[name] = std::move(entry);
  }
  return absl::OkStatus();
}

void OperationManager::RegisterResumer(const std::string& kind, Resumer resumer) {
  base::MutexLock lock(mutex_);
  resumers_[kind] = std::move(resumer);
}

absl::Status OperationManager::CheckLaneLocked(const OperationSpec& spec) {
  if (spec.lane == OperationLane::kAction) return absl::OkStatus();  // the action lock decides
  int busy = 0;
  const Entry* holder = nullptr;
  for (const auto& [name, entry] : entries_) {
    const bool at_work = entry->live() && !entry->operation.done();
    if (!at_work || entry->operation.spec.lane != spec.lane) continue;
    ++busy;
    if (holder == nullptr) holder = entry.get();
  }
  if (busy < (spec.lane == OperationLane::kBackup ? 1 : kReaderLimit)) return absl::OkStatus();
  const int64_t age = absl::ToInt64Seconds(clock_.Now() - holder->operation.create_time);
  return base::WithReason(
      base::Error(
          absl::StatusCode::kAborted,
          "{} refused: {} ({}) has been running for {} s{}. HINT: wait for it, or cancel it",
          spec.kind, holder->operation.spec.kind, holder->operation.name, age,
          busy > 1 ? fmt::format(", with {} more of its kind", busy - 1) : ""),
      {.reason = "ACTION_IN_PROGRESS",
       .metadata = {{"holder", holder->operation.name},
                    {"holder_kind", holder->operation.spec.kind},
                    {"age_seconds", fmt::format("{}", age)}}});
}

std::string OperationManager::NextNameLocked() {
  const std::string second =
      "operations/" + absl::FormatTime("%Y%m%dT%H%M%SZ", clock_.Now(), absl::UTCTimeZone()) + "-";
  const std::string last = entries_.empty() ? "" : entries_.rbegin()->first;
  if (last < second) return second + "0001";
  // The same second as the newest one, or the clock went back: count on from the newest, so that
  // names sort by creation.
  const size_t dash = last.rfind('-');
  int count = 0;
  std::sscanf(last.c_str() + dash + 1, "%d", &count);
  return fmt::format("{}{:04}", last.substr(0, dash + 1), count + 1);
}

absl::StatusOr<OperationManager::EntryPtr> OperationManager::AdmitLocked(OperationSpec spec,
                                                                         OperationBody body) {
  METAL_RETURN_IF_ERROR(CheckLaneLocked(spec));
  auto entry = std::make_shared<Entry>();
  Operation& operation = entry->operation;
  operation.name = NextNameLocked();
  if (spec.lane == OperationLane::kAction) {
    METAL_ASSIGN_OR_RETURN(entry->action, action_lock_.TryAcquire(operation.name, spec.kind));
  }
  operation.spec = std::move(spec);
  operation.create_time = operation.update_time = clock_.Now();
  entry->body = std::move(body);
  return entry;
}

void OperationManager::LaunchLocked(const EntryPtr& entry) {
  entry->progress = std::make_unique<observe::Progress>(clock_);
  entry->progress->SetPhaseObserver([this, weak = std::weak_ptr<Entry>(entry)](const std::string&) {
    if (const EntryPtr strong = weak.lock()) PhaseChanged(strong);
  });
  ++running_;
  entries_[entry->operation.name] = entry;
  const std::string& request_id = entry->operation.spec.request.request_id;
  if (!request_id.empty()) by_request_[request_id] = entry->operation.name;
  BumpLocked(*entry);
  entry->thread =
      base::Thread("op-" + entry->operation.spec.kind, [this, entry] { Execute(entry); });
}

absl::StatusOr<Operation> OperationManager::Start(OperationSpec spec, OperationBody body) {
  if (spec.request.body_hash.empty()) spec.request.body_hash = BodyOf(spec);
  spec.request.caller_left = nullptr;  // refers to the call, which the operation outlives
  if (spec.request.request_id.size() > 256) {
    return absl::InvalidArgumentError("request_id is longer than 256 bytes");
  }
  EntryPtr entry;
  {
    base::MutexLock lock(mutex_);
    if (stopping_) return Stopping();
    METAL_ASSIGN_OR_RETURN(entry, FindRepeatedLocked(spec.request));
    if (entry == nullptr) {
      METAL_ASSIGN_OR_RETURN(entry, AdmitLocked(std::move(spec), std::move(body)));
      LaunchLocked(entry);
    }
  }
  return AwaitAdmission(entry);
}

absl::StatusOr<Operation> OperationManager::AwaitAdmission(const EntryPtr& entry) {
  base::MutexLock lock(mutex_);
  changed_.WaitFor(mutex_, options_.journal_timeout,
                   [&] { return entry->admitted || !entry->refusal.ok(); });
  if (!entry->refusal.ok()) return entry->refusal;
  if (entry->admitted) return ViewLocked(*entry);
  entry->abandoned = true;
  return base::Error(
      absl::StatusCode::kDeadlineExceeded,
      "{} refused: the operation journal {} did not answer within {}. HINT: check the "
      "device of agent.state_dir",
      entry->operation.spec.kind, options_.path, absl::FormatDuration(options_.journal_timeout));
}

size_t OperationManager::Recover() {
  std::vector<EntryPtr> unfinished;
  {
    base::MutexLock lock(mutex_);
    for (const auto& [name, entry] : entries_) {
      if (!entry->operation.done() && !entry->live()) unfinished.push_back(entry);
    }
  }
  size_t resumed = 0;
  for (const EntryPtr& entry : unfinished) resumed += RecoverOne(entry) ? 1 : 0;
  return resumed;
}

bool OperationManager::RecoverOne(const EntryPtr& entry) {
  const std::string& phase = entry->operation.progress.phase;
  const bool again = entry->operation.spec.parameters.contains(kResumedParameter);
  absl::Status why = base::Error(
      absl::StatusCode::kAborted, "the agent restarted while this ran{}{}",
      phase.empty() ? "" : " (phase: " + phase + ")",
      again ? ", for the second time: it is not taken up again. HINT: see in the agent's log why "
              "it died, then start the operation again"
            : ". HINT: start it again");
  {
    base::MutexLock lock(mutex_);
    const auto resumer = resumers_.find(entry->operation.spec.kind);
    if (resumer != resumers_.end() && !entry->operation.cancel_requested && !again) {
      absl::StatusOr<OperationBody> body = resumer->second(entry->operation);
      if (body.ok() && entry->operation.spec.lane == OperationLane::kAction) {
        auto action = action_lock_.TryAcquire(entry->operation.name, entry->operation.spec.kind);
        if (action.ok()) {
          entry->action = *std::move(action);
        } else {
          body = action.status();
        }
      }
      if (body.ok()) {
        entry->body = *std::move(body);
        entry->resumed = true;
        entry->operation.spec.parameters[kResumedParameter] = "true";
        entry->admitted = false;
        LaunchLocked(entry);
        return true;
      }
      why = base::Annotate(body.status(), "the agent restarted while this ran, resume");
    }
  }
  Operation failed = entry->operation;
  failed.state = OperationState::kFailed;
  failed.error = base::WithReason(
      std::move(why), {.reason = "AGENT_RESTARTED", .metadata = {{"kind", failed.spec.kind}}});
  failed.end_time = failed.update_time = clock_.Now();
  Settle(entry, std::move(failed));
  return false;
}

}  // namespace metal::node
