#include "agent/observe/event_store.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "sqlite3.h"

namespace metal::observe {
namespace {

constexpr int kFormat = 1;
constexpr int kBusyMilliseconds = 2000;

constexpr const char* kSchema = R"(
CREATE TABLE IF NOT EXISTS event(
  id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, severity INTEGER NOT NULL,
  type TEXT NOT NULL, subject TEXT NOT NULL, message TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS event_attribute(
  event_id INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY(event_id, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
)";

absl::StatusCode CodeOf(int result) {
  switch (result & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return absl::StatusCode::kFailedPrecondition;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status SqliteStatus(sqlite3* connection, const std::string& path) {
  const int result = sqlite3_extended_errcode(connection);
  const int error = sqlite3_system_errno(connection);
  return base::Error(CodeOf(result), "event log {}: {}{}", path, sqlite3_errmsg(connection),
                     error == 0 ? "" : fmt::format(" ({})", std::strerror(error)));
}

int BindText(sqlite3_stmt* statement, int column, const std::string& text) {
  return sqlite3_bind_text64(statement, column, text.data(), text.size(), SQLITE_STATIC,
                             SQLITE_UTF8);
}

int BindNumber(sqlite3_stmt* statement, int column, uint64_t value) {
  return sqlite3_bind_int64(statement, column, static_cast<int64_t>(value));
}

std::string ColumnText(sqlite3_stmt* statement, int column) {
  const unsigned char* text = sqlite3_column_text(statement, column);
  if (text == nullptr) return "";
  return {reinterpret_cast<const char*>(text),
          static_cast<size_t>(sqlite3_column_bytes(statement, column))};
}

// Runs a bound statement that answers no rows and makes it ready for the next use.
bool StepDone(sqlite3_stmt* statement) {
  const int result = sqlite3_step(statement);
  return sqlite3_reset(statement) == SQLITE_OK && result == SQLITE_DONE;
}

Event ReadEvent(sqlite3_stmt* row) {
  Event event;
  event.id = static_cast<uint64_t>(sqlite3_column_int64(row, 0));
  event.time = absl::FromUnixMicros(sqlite3_column_int64(row, 1));
  event.severity = static_cast<Severity>(std::clamp(sqlite3_column_int(row, 2), 0, 3));
  event.type = ColumnText(row, 3);
  event.subject = ColumnText(row, 4);
  event.message = ColumnText(row, 5);
  return event;
}

}  // namespace

void EventStore::CloseConnection::operator()(sqlite3* connection) const {
  sqlite3_close_v2(connection);
}
void EventStore::FinalizeStatement::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

absl::StatusOr<EventStore::Connection> EventStore::Connect(const std::string& path, int flags) {
  sqlite3* raw = nullptr;
  const int result = sqlite3_open_v2(path.c_str(), &raw, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  Connection connection(raw);
  if (raw == nullptr)
    return base::Error(absl::StatusCode::kResourceExhausted, "event log {}: no memory", path);
  if (result != SQLITE_OK) return SqliteStatus(raw, path);
  sqlite3_busy_timeout(raw, kBusyMilliseconds);
  return connection;
}

absl::Status EventStore::Run(sqlite3* connection, const std::string& path, const char* sql) {
  if (sqlite3_exec(connection, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    return SqliteStatus(connection, path);
  return absl::OkStatus();
}

absl::StatusOr<EventStore::Statement> EventStore::Prepare(sqlite3* connection,
                                                          const std::string& path,
                                                          const char* sql) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v2(connection, sql, -1, &raw, nullptr) != SQLITE_OK)
    return SqliteStatus(connection, path);
  return Statement(raw);
}

absl::StatusOr<uint64_t> EventStore::Number(sqlite3* connection, const std::string& path,
                                            const char* sql) {
  METAL_ASSIGN_OR_RETURN(const Statement statement, Prepare(connection, path, sql));
  if (sqlite3_step(statement.get()) != SQLITE_ROW) return SqliteStatus(connection, path);
  return static_cast<uint64_t>(sqlite3_column_int64(statement.get(), 0));
}

absl::StatusOr<std::unique_ptr<EventStore>> EventStore::Open(const std::string& path, size_t keep) {
  std::unique_ptr<EventStore> store(new EventStore(path, std::max<size_t>(keep, 1)));
  METAL_ASSIGN_OR_RETURN(store->connection_,
                         Connect(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
  METAL_RETURN_IF_ERROR(store->SetUp());
  return store;
}

absl::Status EventStore::SetUp() {
  sqlite3* const connection = connection_.get();
  METAL_ASSIGN_OR_RETURN(const uint64_t format, Number(connection, path_, "PRAGMA user_version"));
  if (format > kFormat) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "event log {}: format {} is newer than {}. HINT: run the newer agent or move the file away",
        path_, format, kFormat);
  }
  METAL_RETURN_IF_ERROR(
      Run(connection, path_, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"));
  METAL_ASSIGN_OR_RETURN(const Statement check,
                         Prepare(connection, path_, "PRAGMA quick_check(1)"));
  if (sqlite3_step(check.get()) != SQLITE_ROW) return SqliteStatus(connection, path_);
  if (const std::string verdict = ColumnText(check.get(), 0); verdict != "ok") {
    return base::Error(absl::StatusCode::kDataLoss, "event log {}: {}", path_, verdict);
  }
  METAL_RETURN_IF_ERROR(Run(connection, path_, kSchema));
  METAL_ASSIGN_OR_RETURN(const uint64_t newest,
                         Number(connection, path_, "SELECT coalesce(max(id), 0) FROM event"));
  METAL_ASSIGN_OR_RETURN(
      const uint64_t reserved,
      Number(connection, path_,
             "SELECT coalesce((SELECT value FROM meta WHERE name = 'reserved'), 0)"));
  METAL_ASSIGN_OR_RETURN(stored_count_, Number(connection, path_, "SELECT count(*) FROM event"));
  last_reserved_id_ = std::max(newest, reserved);
  METAL_ASSIGN_OR_RETURN(
      insert_event_,
      Prepare(connection, path_, "INSERT OR REPLACE INTO event VALUES(?, ?, ?, ?, ?, ?)"));
  METAL_ASSIGN_OR_RETURN(
      insert_attribute_,
      Prepare(connection, path_, "INSERT OR REPLACE INTO event_attribute VALUES(?, ?, ?)"));
  METAL_ASSIGN_OR_RETURN(
      set_reserved_,
      Prepare(connection, path_, "INSERT OR REPLACE INTO meta VALUES('reserved', ?)"));
  return absl::OkStatus();
}

absl::StatusOr<std::string> EventStore::MoveAside(const std::string& path, absl::Time now) {
  const std::string stem =
      path + ".corrupt-" + absl::FormatTime("%Y%m%dT%H%M%SZ", now, absl::UTCTimeZone());
  std::string target = stem;
  for (int i = 2; base::PathExists(target); ++i) target = fmt::format("{}.{}", stem, i);
  for (const char* suffix : {"-wal", "-shm", ""}) {
    if (rename((path + suffix).c_str(), (target + suffix).c_str()) != 0 && errno != ENOENT) {
      return base::ErrnoStatus(errno, "move aside", path + suffix);
    }
  }
  METAL_RETURN_IF_ERROR(base::SyncDirectory(base::DirectoryOf(path)));
  return target;
}

absl::Status EventStore::Insert(const Event& event) {
  sqlite3_stmt* row = insert_event_.get();
  BindNumber(row, 1, event.id);
  sqlite3_bind_int64(row, 2, absl::ToUnixMicros(event.time));
  sqlite3_bind_int(row, 3, static_cast<int>(event.severity));
  BindText(row, 4, event.type);
  BindText(row, 5, event.subject);
  BindText(row, 6, event.message);
  if (!StepDone(row)) return SqliteStatus(connection_.get(), path_);
  for (const auto& [name, value] : event.attributes) {
    BindNumber(insert_attribute_.get(), 1, event.id);
    BindText(insert_attribute_.get(), 2, name);
    BindText(insert_attribute_.get(), 3, value);
    if (!StepDone(insert_attribute_.get())) return SqliteStatus(connection_.get(), path_);
  }
  return absl::OkStatus();
}

absl::Status EventStore::Store(std::span<const Event> events, uint64_t reserve_through) {
  METAL_RETURN_IF_ERROR(Run(connection_.get(), path_, "BEGIN IMMEDIATE"));
  absl::Status status;
  for (const Event& event : events) {
    status = Insert(event);
    if (!status.ok()) break;
  }
  if (status.ok()) {
    BindNumber(set_reserved_.get(), 1, reserve_through);
    if (!StepDone(set_reserved_.get())) status = SqliteStatus(connection_.get(), path_);
  }
  if (status.ok()) status = Run(connection_.get(), path_, "COMMIT");
  if (!status.ok()) {
    if (sqlite3_get_autocommit(connection_.get()) == 0) {
      sqlite3_exec(connection_.get(), "ROLLBACK", nullptr, nullptr,
                   nullptr);  // the first error is reported
    }
    return status;
  }
  stored_count_ += events.size();
  return Trim();
}

absl::Status EventStore::Trim() {
  if (stored_count_ <= keep_ + keep_ / 16) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(
      const uint64_t newest_unwanted,
      Number(connection_.get(), path_,
             fmt::format(
                 "SELECT coalesce((SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET {}), 0)",
                 keep_)
                 .c_str()));
  METAL_RETURN_IF_ERROR(Run(connection_.get(), path_,
                            fmt::format("BEGIN; DELETE FROM event WHERE id <= {0};"
                                        "DELETE FROM event_attribute WHERE event_id <= {0}; COMMIT",
                                        newest_unwanted)
                                .c_str()));
  METAL_ASSIGN_OR_RETURN(stored_count_,
                         Number(connection_.get(), path_, "SELECT count(*) FROM event"));
  return absl::OkStatus();
}

absl::Status EventStore::ReadAttributes(sqlite3* connection, const std::string& path,
                                        std::vector<Event>& events) {
  METAL_ASSIGN_OR_RETURN(
      const Statement rows,
      Prepare(connection, path, "SELECT name, value FROM event_attribute WHERE event_id = ?"));
  for (Event& event : events) {
    BindNumber(rows.get(), 1, event.id);
    int result = SQLITE_ROW;
    while ((result = sqlite3_step(rows.get())) == SQLITE_ROW) {
      event.attributes[ColumnText(rows.get(), 0)] = ColumnText(rows.get(), 1);
    }
    if (result != SQLITE_DONE) return SqliteStatus(connection, path);
    sqlite3_reset(rows.get());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Event>> EventStore::List(const std::string& path,
                                                    const EventFilter& filter) {
  METAL_ASSIGN_OR_RETURN(const Connection connection, Connect(path, SQLITE_OPEN_READWRITE));
  METAL_RETURN_IF_ERROR(
      Run(connection.get(), path, "BEGIN"));  // events and attributes of one moment
  const std::string sql = fmt::format(
      "SELECT id, time_us, severity, type, subject, message FROM event WHERE id > ?1 AND severity "
      ">= ?2 "
      "AND substr(type, 1, length(?3)) = ?3 ORDER BY id {} LIMIT ?4",
      filter.newest ? "DESC" : "ASC");
  METAL_ASSIGN_OR_RETURN(const Statement rows, Prepare(connection.get(), path, sql.c_str()));
  constexpr auto kMostId = static_cast<uint64_t>(INT64_MAX);
  BindNumber(rows.get(), 1, std::min(filter.after_id, kMostId));
  sqlite3_bind_int(rows.get(), 2, static_cast<int>(filter.min_severity));
  BindText(rows.get(), 3, filter.type_prefix);
  BindNumber(rows.get(), 4, std::min<uint64_t>(filter.limit, kMostId));
  std::vector<Event> events;
  int result = SQLITE_ROW;
  while ((result = sqlite3_step(rows.get())) == SQLITE_ROW) events.push_back(ReadEvent(rows.get()));
  if (result != SQLITE_DONE) return SqliteStatus(connection.get(), path);
  if (filter.newest) std::reverse(events.begin(), events.end());
  METAL_RETURN_IF_ERROR(ReadAttributes(connection.get(), path, events));
  return events;
}

}  // namespace metal::observe
