// SqliteStatement: one SQL statement of the operation journal, bound and read in order; and its
// errors as a Status. Threading: one thread at a time.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::node {

// The connection's last error: RESOURCE_EXHAUSTED (NO_SPACE) on a full disk, DATA_LOSS when the
// file or its disk is damaged, FAILED_PRECONDITION when it may not be written, else INTERNAL.
absl::Status SqliteError(sqlite3* database, std::string_view what);

// Prepared at construction; an error there is reported by the first Step.
class SqliteStatement {
 public:
  SqliteStatement(sqlite3* database, const char* sql) : database_(database) {
    prepared_ = sqlite3_prepare_v2(database, sql, -1, &statement_, nullptr) == SQLITE_OK;
  }
  ~SqliteStatement() { sqlite3_finalize(statement_); }
  SqliteStatement(const SqliteStatement&) = delete;
  SqliteStatement& operator=(const SqliteStatement&) = delete;

  SqliteStatement& Bind(std::string_view text) {
    if (prepared_) {
      sqlite3_bind_text64(statement_, ++bound_, text.data(), text.size(), SQLITE_TRANSIENT,
                          SQLITE_UTF8);
    }
    return *this;
  }
  SqliteStatement& BindBlob(std::string_view bytes) {
    if (prepared_) {
      sqlite3_bind_blob64(statement_, ++bound_, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
    }
    return *this;
  }
  SqliteStatement& Bind(int64_t number) {
    if (prepared_) sqlite3_bind_int64(statement_, ++bound_, number);
    return *this;
  }
  SqliteStatement& Bind(absl::Time time) {
    if (!prepared_) return *this;
    if (time == absl::InfinitePast() || time == absl::InfiniteFuture()) {
      sqlite3_bind_null(statement_, ++bound_);
      return *this;
    }
    return Bind(absl::ToUnixMicros(time));
  }

  // True: a row is there; false: the end.
  absl::StatusOr<bool> Step(std::string_view what) {
    const int code = prepared_ ? sqlite3_step(statement_) : SQLITE_ERROR;
    column_ = 0;
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return SqliteError(database_, what);
  }
  absl::Status Run(std::string_view what) { return Step(what).status(); }

  std::string Text() {
    const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column_));
    const int size = sqlite3_column_bytes(statement_, column_);
    ++column_;
    return bytes == nullptr ? std::string() : std::string(bytes, static_cast<size_t>(size));
  }
  int64_t Number() { return sqlite3_column_int64(statement_, column_++); }
  absl::Time Time() {
    if (sqlite3_column_type(statement_, column_) == SQLITE_NULL) {
      ++column_;
      return absl::InfinitePast();
    }
    return absl::FromUnixMicros(Number());
  }

 private:
  sqlite3* const database_;
  sqlite3_stmt* statement_ = nullptr;
  bool prepared_ = false;
  int bound_ = 0;
  int column_ = 0;
};

}  // namespace metal::node
