// The journal of operations and the remembered answers of short calls: state_dir/operations.db,
// SQLite with journal_mode=WAL and synchronous=FULL, so that what returned OK survives a power cut
// (but for PutPhase, which a power cut may take back: its phase and the request to cancel).
// Threading: thread-safe (one connection behind a mutex). Every call waits for the state disk:
// never call on the status path.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/node/operations/operation.h"

struct sqlite3;

namespace metal::node {

struct RememberedResult {
  std::string request_id, method, body_hash, answer;
  absl::Time time;
};

class OperationJournal {
 public:
  // DATA_LOSS when the file is no database of ours or is corrupt; the caller moves it aside.
  static absl::StatusOr<std::unique_ptr<OperationJournal>> Open(const std::string& path);
  ~OperationJournal();
  OperationJournal(const OperationJournal&) = delete;

  // Inserts or replaces. RESOURCE_EXHAUSTED when the disk is full, DATA_LOSS on a corrupt database.
  absl::Status Put(const Operation& operation);
  // Notes phase, bytes and a wish to cancel of an operation that is stored. Survives the agent's
  // end, and a power cut only once a later call has returned: nothing is decided by it, and it must
  // not make the operation wait for the disk that it is just filling.
  absl::Status PutPhase(const Operation& operation);
  absl::Status Remove(const std::string& name);
  // All, oldest first.
  absl::StatusOr<std::vector<Operation>> LoadAll();

  absl::Status Remember(const RememberedResult& result);
  absl::StatusOr<std::optional<RememberedResult>> Recall(const std::string& request_id);
  // Drops what is older than `before` and all but the newest `keep`.
  absl::Status Forget(absl::Time before, size_t keep);

 private:
  explicit OperationJournal(sqlite3* database) : database_(database) {}
  absl::Status Prepare();
  base::Mutex mutex_;
  sqlite3* const database_;
};

}  // namespace metal::node
