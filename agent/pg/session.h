// SqlSession: one connection to the local server. The seam for tests
// (tests/harness/fake_sql_session.h). Threading: one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"

namespace metal::pg {

using SqlValue = std::optional<std::string>;  // nullopt: NULL

struct SqlResult {
  std::vector<std::string> columns;
  std::vector<std::vector<SqlValue>> rows;

  // Value in row `row` of column `name`; nullopt for NULL or when there is no such row or column.
  const SqlValue& Get(size_t row, std::string_view name) const;
  std::string Text(size_t row, std::string_view name) const;  // "" for NULL
  std::optional<int64_t> Int(size_t row, std::string_view name) const;
  std::optional<double> Double(size_t row, std::string_view name) const;
  bool Bool(size_t row, std::string_view name) const;        // 't'; false for NULL
  base::Lsn LsnAt(size_t row, std::string_view name) const;  // 0 for NULL
  // From a column in seconds since the epoch (extract(epoch from …)); infinite past for NULL.
  absl::Time Time(size_t row, std::string_view name) const;
};

struct QueryOptions {
  absl::Duration timeout = absl::Seconds(2);
  std::function<bool()> cancelled = {};  // polled every 100 ms; may be empty
};

class SqlSession {
 public:
  virtual ~SqlSession() = default;
  // Runs one statement; $1… are `parameters` as text. When the timeout passes (DEADLINE_EXCEEDED)
  // or `cancelled` says so (CANCELLED) the statement is cancelled on the server; if that takes more
  // than a second the session is closed. UNAVAILABLE: the connection is lost, every later call
  // fails. An SQL error keeps its SQLSTATE in the reason's metadata
  // ("sqlstate", reason POSTGRES_ERROR).
  virtual absl::StatusOr<SqlResult> Query(const std::string& sql,
                                          const std::vector<SqlValue>& parameters,
                                          const QueryOptions& options) = 0;
  virtual bool connected() const = 0;
  virtual int server_version() const = 0;  // server_version_num
  virtual int backend_pid() const = 0;

  absl::StatusOr<SqlResult> Query(const std::string& sql, absl::Duration timeout) {
    return Query(sql, {}, QueryOptions{timeout, nullptr});
  }
};

struct ConnectOptions {
  std::string socket_dir;  // or a host, for a server that is not this node's
  int port = 5432;
  std::string user = "postgres";
  std::string database = "postgres";
  std::string passfile;              // empty: none
  std::string ssl_mode = "disable";  // libpq's sslmode; empty: libpq's default
  std::string application_name = "metal-agent";
  absl::Duration connect_timeout = absl::Seconds(2);
  // Set on the server; 0: none, the deadline of each call still holds.
  absl::Duration statement_timeout = absl::Seconds(30);
  absl::Duration lock_timeout = absl::Seconds(2);
  // Further settings of the session, by name; they win over what ALTER DATABASE and ALTER ROLE set.
  // Values without blanks and backslashes.
  std::vector<std::pair<std::string, std::string>> settings = {};
};

// Connects over the unix socket with search_path=pg_catalog. UNAVAILABLE: nobody listens, or the
// server is starting up or shutting down; DEADLINE_EXCEEDED: it does not answer; PERMISSION_DENIED:
// authentication.
absl::StatusOr<std::unique_ptr<SqlSession>> ConnectLibpq(const ConnectOptions& options);

using SessionFactory = std::function<absl::StatusOr<std::unique_ptr<SqlSession>>()>;

// The code for an SQLSTATE: 57P03 and class 08 UNAVAILABLE, 57014 CANCELLED, 42501
// PERMISSION_DENIED, 22xxx and 42xxx INVALID_ARGUMENT, 53100 RESOURCE_EXHAUSTED, 58030 and
// XX001/XX002 DATA_LOSS, 55xxx FAILED_PRECONDITION, else INTERNAL.
absl::StatusCode SqlStateCode(std::string_view sqlstate);

}  // namespace metal::pg
