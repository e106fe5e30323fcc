#include "agent/node/operations/operation_journal.h"

#include <string_view>
#include <utility>

#include "agent/base/status.h"
#include "agent/base/text_map.h"
#include "agent/node/operations/sqlite_statement.h"

namespace metal::node {

namespace {

// The number in PRAGMA application_id that marks the file as ours ("mtlo").
constexpr int kApplicationId = 1836346479;
constexpr int kFormatVersion = 1;

constexpr const char* kSchema = R"sql(
CREATE TABLE IF NOT EXISTS operation(
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, parameters TEXT NOT NULL,
  lane INTEGER NOT NULL, request_id TEXT NOT NULL, body_hash TEXT NOT NULL, caller TEXT NOT NULL,
  term INTEGER NOT NULL, state INTEGER NOT NULL, phase TEXT NOT NULL, done_bytes INTEGER NOT NULL,
  total_bytes INTEGER NOT NULL, cancel_requested INTEGER NOT NULL, create_us INTEGER NOT NULL,
  start_us INTEGER, update_us INTEGER NOT NULL, end_us INTEGER, error_code INTEGER NOT NULL,
  error_message TEXT NOT NULL, error_reason TEXT NOT NULL, error_metadata TEXT NOT NULL,
  result_name TEXT NOT NULL, result TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remembered(
  request_id TEXT PRIMARY KEY, method TEXT NOT NULL, body_hash TEXT NOT NULL, answer BLOB NOT NULL,
  time_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS remembered_time ON remembered(time_us);
)sql";

absl::Status Execute(sqlite3* database, const char* sql, std::string_view what) {
  if (sqlite3_exec(database, sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    return SqliteError(database, what);
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> QueryNumber(sqlite3* database, const char* sql) {
  SqliteStatement statement(database, sql);
  METAL_ASSIGN_OR_RETURN(const bool row, statement.Step(sql));
  return row ? statement.Number() : 0;
}

// In the order of the columns of the table.
Operation ReadRow(SqliteStatement& row) {
  Operation operation;
  operation.name = row.Text();
  operation.spec.kind = row.Text();
  operation.spec.subject = row.Text();
  operation.spec.parameters = base::DecodeMap(row.Text());
  operation.spec.lane = static_cast<OperationLane>(row.Number());
  operation.spec.request.request_id = row.Text();
  operation.spec.request.body_hash = row.Text();
  operation.spec.request.caller = row.Text();
  operation.spec.term = static_cast<uint64_t>(row.Number());
  operation.state = static_cast<OperationState>(row.Number());
  operation.progress.phase = row.Text();
  operation.progress.done_bytes = static_cast<uint64_t>(row.Number());
  operation.progress.total_bytes = static_cast<uint64_t>(row.Number());
  operation.cancel_requested = row.Number() != 0;
  operation.create_time = row.Time();
  operation.start_time = row.Time();
  operation.update_time = row.Time();
  operation.end_time = row.Time();
  const auto code = static_cast<absl::StatusCode>(row.Number());
  const std::string message = row.Text();
  const std::string reason = row.Text();
  auto metadata = base::DecodeMap(row.Text());
  if (code != absl::StatusCode::kOk) {
    operation.error = absl::Status(code, message);
    if (!reason.empty()) {
      operation.error = base::WithReason(std::move(operation.error), {reason, std::move(metadata)});
    }
  }
  operation.result.name = row.Text();
  operation.result.values = base::DecodeMap(row.Text());
  return operation;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OperationJournal>> OperationJournal::Open(const std::string& path) {
  sqlite3* database = nullptr;
  const int code = sqlite3_open_v2(
      path.c_str(), &database,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_EXRESCODE,
      nullptr);
  if (code != SQLITE_OK) {
    absl::Status error = database == nullptr
                             ? base::Error(absl::StatusCode::kResourceExhausted,
                                           "operation journal: open {}: out of memory", path)
                             : SqliteError(database, "open " + path);
    sqlite3_close(database);
    return error;
  }
  std::unique_ptr<OperationJournal> journal(new OperationJournal(database));
  METAL_RETURN_IF_ERROR(journal->Prepare());
  return journal;
}

OperationJournal::~OperationJournal() { sqlite3_close(database_); }

absl::Status OperationJournal::Prepare() {
  base::MutexLock lock(mutex_);
  sqlite3_busy_timeout(database_, 5000);
  METAL_RETURN_IF_ERROR(Execute(database_, "PRAGMA journal_mode=WAL", "switch to WAL"));
  METAL_RETURN_IF_ERROR(Execute(database_, "PRAGMA synchronous=FULL", "set synchronous"));
  METAL_ASSIGN_OR_RETURN(const int64_t id, QueryNumber(database_, "PRAGMA application_id"));
  METAL_ASSIGN_OR_RETURN(const int64_t version, QueryNumber(database_, "PRAGMA user_version"));
  METAL_ASSIGN_OR_RETURN(const int64_t tables,
                         QueryNumber(database_, "SELECT count(*) FROM sqlite_schema"));
  if (id != kApplicationId && (id != 0 || tables != 0)) {
    return base::Error(absl::StatusCode::kDataLoss, "operation journal: not a journal of ours");
  }
  if (version > kFormatVersion) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "operation journal: format {} is newer than this agent's {}. HINT: start the "
        "newer agent, or move operations.db away",
        version, kFormatVersion);
  }
  SqliteStatement check(database_, "PRAGMA quick_check(1)");
  METAL_ASSIGN_OR_RETURN(const bool row, check.Step("check the file"));
  const std::string verdict = row ? check.Text() : "";
  if (verdict != "ok") {
    return base::Error(absl::StatusCode::kDataLoss, "operation journal: {}", verdict);
  }
  METAL_RETURN_IF_ERROR(Execute(database_, kSchema, "create the tables"));
  return Execute(database_, "PRAGMA application_id=1836346479; PRAGMA user_version=1",
                 "mark the file");
}

absl::Status OperationJournal::Put(const Operation& operation) {
  const auto reason = base::GetReason(operation.error).value_or(base::ErrorReason());
  base::MutexLock lock(mutex_);
  SqliteStatement put(database_,
                      "INSERT OR REPLACE INTO operation VALUES"
                      "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  put.Bind(operation.name)
      .Bind(operation.spec.kind)
      .Bind(operation.spec.subject)
      .Bind(base::EncodeMap(operation.spec.parameters))
      .Bind(static_cast<int64_t>(operation.spec.lane))
      .Bind(operation.spec.request.request_id)
      .Bind(operation.spec.request.body_hash)
      .Bind(operation.spec.request.caller)
      .Bind(static_cast<int64_t>(operation.spec.term))
      .Bind(static_cast<int64_t>(operation.state))
      .Bind(operation.progress.phase)
      .Bind(static_cast<int64_t>(operation.progress.done_bytes))
      .Bind(static_cast<int64_t>(operation.progress.total_bytes))
      .Bind(static_cast<int64_t>(operation.cancel_requested))
      .Bind(operation.create_time)
      .Bind(operation.start_time)
      .Bind(operation.update_time)
      .Bind(operation.end_time)
      .Bind(static_cast<int64_t>(operation.error.code()))
      .Bind(std::string(operation.error.message()))
      .Bind(reason.reason)
      .Bind(base::EncodeMap(reason.metadata))
      .Bind(operation.result.name)
      .Bind(base::EncodeMap(operation.result.values));
  return put.Run("store " + operation.name);
}

absl::Status OperationJournal::PutPhase(const Operation& operation) {
  base::MutexLock lock(mutex_);
  METAL_RETURN_IF_ERROR(Execute(database_, "PRAGMA synchronous=NORMAL", "relax synchronous"));
  const absl::Status stored =
      SqliteStatement(database_,
                      "UPDATE operation SET phase = ?, done_bytes = ?, total_bytes = ?, "
                      "cancel_requested = ?, update_us = ? WHERE name = ?")
          .Bind(operation.progress.phase)
          .Bind(static_cast<int64_t>(operation.progress.done_bytes))
          .Bind(static_cast<int64_t>(operation.progress.total_bytes))
          .Bind(static_cast<int64_t>(operation.cancel_requested))
          .Bind(operation.update_time)
          .Bind(operation.name)
          .Run("store the phase of " + operation.name);
  const absl::Status restored = Execute(database_, "PRAGMA synchronous=FULL", "set synchronous");
  return stored.ok() ? restored : stored;
}

absl::Status OperationJournal::Remove(const std::string& name) {
  base::MutexLock lock(mutex_);
  return SqliteStatement(database_, "DELETE FROM operation WHERE name = ?")
      .Bind(name)
      .Run("remove " + name);
}

absl::StatusOr<std::vector<Operation>> OperationJournal::LoadAll() {
  base::MutexLock lock(mutex_);
  SqliteStatement select(database_, "SELECT * FROM operation ORDER BY name");
  std::vector<Operation> operations;
  while (true) {
    METAL_ASSIGN_OR_RETURN(const bool row, select.Step("load"));
    if (!row) return operations;
    operations.push_back(ReadRow(select));
  }
}

absl::Status OperationJournal::Remember(const RememberedResult& result) {
  base::MutexLock lock(mutex_);
  return SqliteStatement(database_, "INSERT OR REPLACE INTO remembered VALUES (?,?,?,?,?)")
      .Bind(result.request_id)
      .Bind(result.method)
      .Bind(result.body_hash)
      .BindBlob(result.answer)
      .Bind(result.time)
      .Run("remember request " + result.request_id);
}

absl::StatusOr<std::optional<RememberedResult>> OperationJournal::Recall(
    const std::string& request_id) {
  base::MutexLock lock(mutex_);
  SqliteStatement select(database_,
                         "SELECT request_id, method, body_hash, answer, time_us FROM remembered "
                         "WHERE request_id = ?");
  select.Bind(request_id);
  METAL_ASSIGN_OR_RETURN(const bool row, select.Step("recall request " + request_id));
  if (!row) return std::optional<RememberedResult>();
  RememberedResult result;
  result.request_id = select.Text();
  result.method = select.Text();
  result.body_hash = select.Text();
  result.answer = select.Text();
  result.time = select.Time();
  return std::optional<RememberedResult>(std::move(result));
}

absl::Status OperationJournal::Forget(absl::Time before, size_t keep) {
  base::MutexLock lock(mutex_);
  METAL_RETURN_IF_ERROR(SqliteStatement(database_, "DELETE FROM remembered WHERE time_us < ?")
                            .Bind(before)
                            .Run("forget old requests"));
  return SqliteStatement(
             database_,
             "DELETE FROM remembered WHERE request_id IN (SELECT request_id FROM remembered "
             "ORDER BY time_us DESC LIMIT -1 OFFSET ?)")
      .Bind(static_cast<int64_t>(keep))
      .Run("forget old requests");
}

}  // namespace metal::node
