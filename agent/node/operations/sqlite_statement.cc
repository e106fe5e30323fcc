#include "agent/node/operations/sqlite_statement.h"

#include "agent/base/status.h"

namespace metal::node {

absl::Status SqliteError(sqlite3* database, std::string_view what) {
  const int code = sqlite3_extended_errcode(database) & 0xff;
  absl::StatusCode status = absl::StatusCode::kInternal;
  std::string hint;
  switch (code) {
    case SQLITE_FULL:
      status = absl::StatusCode::kResourceExhausted;
      hint = ". HINT: free space on the device of agent.state_dir";
      break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_IOERR:
      status = absl::StatusCode::kDataLoss;
      break;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      status = absl::StatusCode::kFailedPrecondition;
      hint = ". HINT: check owner, mode and mount of agent.state_dir";
      break;
    default:
      break;
  }
  absl::Status error =
      base::Error(status, "operation journal: {}: {}{}", what, sqlite3_errmsg(database), hint);
  if (code == SQLITE_FULL) {
    const char* path = sqlite3_db_filename(database, "main");
    error = base::WithReason(
        std::move(error),
        {.reason = "NO_SPACE", .metadata = {{"path", path == nullptr ? "" : path}}});
  }
  return error;
}

}  // namespace metal::node
