// OperationManager: runs long actions, each on a thread of its own, and keeps their journal.
// An operation is in the journal (SQLite, synchronous=FULL) before its body starts and before
// anyone is told that it ended. After a crash of the agent Recover() resumes it when its kind
// registered a resumer, but once only: what may itself be the cause of the crashes must not make a
// loop of them. Otherwise it ends as FAILED/AGENT_RESTARTED. Limits: one kAction, one kBackup,
// four kReader operations; the newest 1000 are kept; remembered answers live 24 h and are at most
// 10000. Threading: thread-safe; reads (Get, List, Wait…) look at memory only and never wait for
// the journal.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/node/operations/action_lock.h"
#include "agent/node/operations/operation.h"
#include "agent/node/operations/operation_journal.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::node {

struct OperationFilter {
  std::string kind;         // empty: all
  bool unfinished = false;  // only PENDING and RUNNING
  size_t page_size = 50;    // 1..1000; more is cut, 0 means 50
  std::string page_token;   // from the page before; empty: the newest
};
struct OperationPage {
  std::vector<Operation> operations;  // newest first
  std::string next_page_token;        // empty: this was the last page
};

struct OperationManagerOptions {
  std::string path;  // of the journal; its directory exists
  size_t keep = 1000;
  absl::Duration remember = absl::Hours(24);
  size_t remember_max = 10000;
  absl::Duration journal_timeout =
      absl::Seconds(30);  // Start gives up when the journal's disk does not answer
  // Called on the operation's thread right before its body runs and after it ended, however it did;
  // may be null.
  std::function<void(const std::string&kind, const std::string&name)> before_body = nullptr,
                                                                      after_body = nullptr;
};

class OperationManager {
 public:
  using Options = OperationManagerOptions;
  // Opens the journal; one that is corrupt is moved aside as <path>.corrupt-<time> and reported as
  // an event. The references outlive the manager.
  static absl::StatusOr<std::unique_ptr<OperationManager>> Open(Options options, base::Clock& clock,
                                                                observe::StatusBoard& board,
                                                                observe::EventLog& events);
  // Drain().
  ~OperationManager();
  OperationManager(const OperationManager&) = delete;
  OperationManager& operator=(const OperationManager&) = delete;

  // Refuses new operations (UNAVAILABLE), asks every body to stop and ends all waits. An operation
  // that stops only because of this stays unfinished in the journal: the next start treats it as
  // after a crash. Does not wait for bodies. Idempotent.
  void Shutdown();

  // Shutdown(), and waits until no body runs any more. What bodies refer to may go then.
  void Drain();

  // Before Recover(): how an interrupted operation of `kind` goes on. The body must be safe to run
  // from its beginning.
  using Resumer = std::function<absl::StatusOr<OperationBody>(const Operation&)>;
  void RegisterResumer(const std::string& kind, Resumer resumer);
  // Once, before the first Start: settles what an earlier process left unfinished. Answers how many
  // were resumed.
  size_t Recover();

  // Journals the operation and starts its body; returns it as kRunning or later. Errors mean that
  // the body does not run: ABORTED/ACTION_IN_PROGRESS names the holder of the lane and its age;
  // INVALID_ARGUMENT/REQUEST_ID_REUSED; the journal's error (RESOURCE_EXHAUSTED when its disk is
  // full); DEADLINE_EXCEEDED when the journal's disk does not answer. The same request_id and body
  // within 24 h answers the earlier operation.
  absl::StatusOr<Operation> Start(OperationSpec spec, OperationBody body);

  // The operation that Start would answer because the request was made before; nullopt: a new
  // request. Ask it before anything that may refuse: a repeated request gets its first answer,
  // whatever has changed since. REQUEST_ID_REUSED.
  absl::StatusOr<std::optional<Operation>> FindByRequest(const RequestContext& request);

  // Runs a short mutating call at most once per request_id: `run`'s answer (opaque bytes) is
  // remembered durably for 24 h and given again to the same request; errors are not remembered.
  // ABORTED/ACTION_IN_PROGRESS while the first one still runs. `method` is part of the body. An
  // empty request_id just runs. The answer is given even if it could not be remembered (an event
  // says so).
  absl::StatusOr<std::string> RunOnce(const RequestContext& request, const std::string& method,
                                      const std::function<absl::StatusOr<std::string>()>& run);

  // NOT_FOUND for an unknown name.
  absl::StatusOr<Operation> Get(const std::string& name);
  // INVALID_ARGUMENT for a page token that is not ours.
  absl::StatusOr<OperationPage> List(const OperationFilter& filter);
  // Waits until it is done or `timeout` passed; answers it either way (look at done()).
  absl::StatusOr<Operation> Wait(const std::string& name, absl::Duration timeout);
  // Waits for a change after `revision` (phase, state, cancel request), at most `timeout`; answers
  // the operation with live progress either way. Watchers call it in a loop with the last answer's
  // revision, 0 first.
  absl::StatusOr<Operation> WaitForChange(const std::string& name, uint64_t revision,
                                          absl::Duration timeout);
  // Asks the body to stop, then journals the wish; best effort, the operation ends as kCancelled
  // when it obeyed. OK when it is done already.
  absl::StatusOr<Operation> Cancel(const std::string& name);

  // For short actions that are no operations.
  ActionLock& action_lock() { return action_lock_; }

 private:
  struct Entry;
  using EntryPtr = std::shared_ptr<Entry>;

  OperationManager(Options options, std::unique_ptr<OperationJournal> journal, base::Clock& clock,
                   observe::StatusBoard& board, observe::EventLog& events);
  absl::Status Load();
  static absl::Status RequestReused(const std::string& request_id, const std::string& earlier);
  static absl::Status Stopping();
  // The earlier operation of this request, or null. REQUEST_ID_REUSED.
  absl::StatusOr<EntryPtr> FindRepeatedLocked(const RequestContext& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckLaneLocked(const OperationSpec& spec) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<EntryPtr> AdmitLocked(OperationSpec spec, OperationBody body)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LaunchLocked(const EntryPtr& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Operation> AwaitAdmission(const EntryPtr& entry);
  bool RecoverOne(const EntryPtr& entry);

  // On the operation's thread.
  void Execute(const EntryPtr& entry);
  void Leave(const EntryPtr& entry);
  absl::StatusOr<OperationResult> RunBody(const EntryPtr& entry);
  bool Journalize(const EntryPtr& entry);
  void Finish(const EntryPtr& entry, absl::StatusOr<OperationResult> outcome);
  void Settle(const EntryPtr& entry, Operation final_state);
  void PhaseChanged(const EntryPtr& entry);
  void TrimJournal();

  void BumpLocked(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Operation ViewLocked(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<EntryPtr> FindLocked(const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string NextNameLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PublishLoop();
  void PublishBoard();
  absl::StatusOr<std::optional<std::string>> RecallAnswer(const RequestContext& request,
                                                          const std::string& method);

  const Options options_;
  base::Clock& clock_;
  observe::StatusBoard& board_;
  observe::EventLog& events_;
  ActionLock action_lock_;
  const std::unique_ptr<OperationJournal> journal_;  // never called with mutex_ held

  base::Mutex mutex_;
  base::CondVar changed_;    // an operation changed, or stopping_
  base::CondVar published_;  // wakes the publisher
  std::map<std::string, EntryPtr> entries_ ABSL_GUARDED_BY(mutex_);        // by name: by age
  std::map<std::string, std::string> by_request_ ABSL_GUARDED_BY(mutex_);  // request_id → name
  std::map<std::string, Resumer> resumers_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> short_calls_ ABSL_GUARDED_BY(mutex_);  // running RunOnce ids
  std::vector<base::Thread> finished_ ABSL_GUARDED_BY(mutex_);              // to be joined
  size_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t revision_ ABSL_GUARDED_BY(mutex_) = 0;
  bool publish_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  base::Thread publisher_;
};

}  // namespace metal::node
