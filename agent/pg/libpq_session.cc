// ConnectLibpq: SqlSession over asynchronous libpq, so that no call waits longer than its deadline.
#include <libpq-fe.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/status.h"
#include "agent/pg/session.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kCancelPoll = absl::Milliseconds(100);
constexpr absl::Duration kCancelPatience = absl::Seconds(1);

struct FinishConnection {
  void operator()(PGconn* connection) const { PQfinish(connection); }
};
using UniqueConnection = std::unique_ptr<PGconn, FinishConnection>;
struct ClearResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using UniqueResult = std::unique_ptr<PGresult, ClearResult>;

// libpq's messages have several lines and a trailing newline.
std::string OneLine(const char* text) {
  std::string line;
  for (const char* p = text == nullptr ? "" : text; *p != '\0'; ++p) {
    if (*p == '\n' || *p == '\t' || *p == ' ') {
      if (!line.empty() && line.back() != ' ') line += ' ';
    } else {
      line += *p;
    }
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

base::MonotonicTime Now() { return base::RealClock().Monotonic(); }

// Waits for the socket. DEADLINE_EXCEEDED, CANCELLED, or OK when ready.
absl::Status WaitSocket(int fd, short events, base::MonotonicTime deadline,
                        const std::function<bool()>& cancelled) {
  while (true) {
    if (cancelled && cancelled()) return absl::CancelledError("cancelled");
    const absl::Duration left = deadline - Now();
    if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("timed out");
    const absl::Duration slice = cancelled ? std::min(left, kCancelPoll) : left;
    pollfd entry{fd, events, 0};
    const int64_t ms = std::clamp<int64_t>(absl::ToInt64Milliseconds(slice) + 1, 1, 1'000'000);
    const int ready = poll(&entry, 1, static_cast<int>(ms));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR)
      return base::ErrnoStatus(errno, "poll", "connection to postgres");
  }
}

absl::Status SqlError(const PGresult* result) {
  const auto field = [&](int code) {
    const char* text = PQresultErrorField(result, code);
    return std::string(text == nullptr ? "" : text);
  };
  const std::string sqlstate = field(PG_DIAG_SQLSTATE);
  std::string message = field(PG_DIAG_MESSAGE_PRIMARY);
  if (message.empty()) message = OneLine(PQresultErrorMessage(result));
  if (const std::string detail = field(PG_DIAG_MESSAGE_DETAIL); !detail.empty())
    message += ": " + detail;
  if (const std::string hint = field(PG_DIAG_MESSAGE_HINT); !hint.empty())
    message += ". HINT: " + hint;
  return base::WithReason(
      base::Error(SqlStateCode(sqlstate), "postgres: {}", OneLine(message.c_str())),
      {"POSTGRES_ERROR", {{"sqlstate", sqlstate}}});
}

SqlResult ReadRows(const PGresult* result) {
  SqlResult answer;
  const int columns = PQnfields(result);
  for (int column = 0; column < columns; ++column)
    answer.columns.emplace_back(PQfname(result, column));
  const int rows = PQntuples(result);
  answer.rows.resize(static_cast<size_t>(rows));
  for (int row = 0; row < rows; ++row) {
    auto& values = answer.rows[static_cast<size_t>(row)];
    for (int column = 0; column < columns; ++column) {
      if (PQgetisnull(result, row, column) != 0) {
        values.emplace_back(std::nullopt);
      } else {
        values.emplace_back(std::string(PQgetvalue(result, row, column),
                                        static_cast<size_t>(PQgetlength(result, row, column))));
      }
    }
  }
  return answer;
}

class LibpqSession : public SqlSession {
 public:
  // `local`: the backend is a process of this host.
  LibpqSession(UniqueConnection connection, bool local) : connection_(std::move(connection)) {
    version_ = PQserverVersion(connection_.get());
    pid_ = PQbackendPID(connection_.get());
    if (!local) return;
    process_ = base::UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  }

  using SqlSession::Query;
  absl::StatusOr<SqlResult> Query(const std::string& sql, const std::vector<SqlValue>& parameters,
                                  const QueryOptions& options) override {
    if (!connected()) return absl::UnavailableError("connection to postgres is closed");
    std::vector<const char*> values;
    for (const SqlValue& value : parameters) values.push_back(value ? value->c_str() : nullptr);
    if (PQsendQueryParams(connection_.get(), sql.c_str(), static_cast<int>(values.size()), nullptr,
                          values.data(), nullptr, nullptr, 0) == 0) {
      return Lost();
    }
    const base::MonotonicTime deadline = Now() + options.timeout;
    absl::Status waited = Flush(deadline, options.cancelled);
    absl::StatusOr<SqlResult> answer = absl::UnknownError("no result");
    if (waited.ok()) waited = Collect(deadline, options.cancelled, answer);
    if (waited.ok()) return answer;
    if (absl::IsUnavailable(waited)) return waited;
    CancelOnServer();
    return base::Error(waited.code(), "statement {} after {}",
                       absl::IsCancelled(waited) ? "was cancelled" : "timed out",
                       absl::FormatDuration(options.timeout - (deadline - Now())));
  }

  bool connected() const override { return connection_ != nullptr; }
  int server_version() const override { return version_; }
  int backend_pid() const override { return pid_; }

 private:
  absl::Status Lost() {
    absl::Status status =
        base::Error(absl::StatusCode::kUnavailable, "connection to postgres is lost: {}",
                    OneLine(PQerrorMessage(connection_.get())));
    connection_.reset();
    return status;
  }

  absl::Status Flush(base::MonotonicTime deadline, const std::function<bool()>& cancelled) {
    while (true) {
      const int left = PQflush(connection_.get());
      if (left == 0) return absl::OkStatus();
      if (left < 0) return Lost();
      METAL_RETURN_IF_ERROR(
          WaitSocket(PQsocket(connection_.get()), POLLIN | POLLOUT, deadline, cancelled));
      if (PQconsumeInput(connection_.get()) == 0) return Lost();
    }
  }

  // Reads up to the end of the statement. The last result, or its error, goes to `answer`.
  absl::Status Collect(base::MonotonicTime deadline, const std::function<bool()>& cancelled,
                       absl::StatusOr<SqlResult>& answer) {
    while (true) {
      while (PQisBusy(connection_.get()) != 0) {
        METAL_RETURN_IF_ERROR(WaitSocket(PQsocket(connection_.get()), POLLIN, deadline, cancelled));
        if (PQconsumeInput(connection_.get()) == 0) return Lost();
      }
      UniqueResult result(PQgetResult(connection_.get()));
      if (!result) break;
      const ExecStatusType status = PQresultStatus(result.get());
      if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
        answer = ReadRows(result.get());
      } else {
        answer = SqlError(result.get());
      }
    }
    if (PQstatus(connection_.get()) == CONNECTION_BAD) {
      // The server's last words (shutdown, crash of another backend) are the better message.
      const std::string words = answer.ok() ? OneLine(PQerrorMessage(connection_.get()))
                                            : std::string(answer.status().message());
      connection_.reset();
      return base::Error(absl::StatusCode::kUnavailable, "connection to postgres is lost: {}",
                         words);
    }
    return absl::OkStatus();
  }

  // SIGINT to the backend is its "cancel". PQcancel would connect to the postmaster and wait for
  // it, which hangs when the postmaster does; the agent runs as the server's OS user, and the pidfd
  // names the process for ever.
  void CancelOnServer() {
    const bool sent =
        process_.valid() && syscall(SYS_pidfd_send_signal, process_.get(), SIGINT, nullptr, 0) == 0;
    absl::StatusOr<SqlResult> ignored = absl::UnknownError("");
    if (!sent || !Collect(Now() + kCancelPatience, nullptr, ignored).ok()) connection_.reset();
  }

  base::UniqueFd process_;  // the backend; none when it is not on this host
  UniqueConnection connection_;
  int version_ = 0;
  int pid_ = 0;
};

absl::Status ConnectError(const ConnectOptions& options, PGconn* connection) {
  const std::string message = OneLine(PQerrorMessage(connection));
  absl::StatusCode code = absl::StatusCode::kUnavailable;
  for (const char* text :
       {"authentication failed", "no pg_hba.conf entry", "does not exist", "permission denied"}) {
    if (message.find(text) != std::string::npos) code = absl::StatusCode::kPermissionDenied;
  }
  return base::Error(code, "connect to {}/.s.PGSQL.{} as {}: {}", options.socket_dir, options.port,
                     options.user, message);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqlSession>> ConnectLibpq(const ConnectOptions& options) {
  const std::string port = fmt::format("{}", options.port);
  std::string server_options = fmt::format(
      "-c search_path=pg_catalog -c statement_timeout={} -c lock_timeout={} -c "
      "client_min_messages=error "
      "-c synchronous_commit=local",
      absl::ToInt64Milliseconds(options.statement_timeout),
      absl::ToInt64Milliseconds(options.lock_timeout));
  for (const auto& [name, value] : options.settings) {
    server_options += fmt::format(" -c {}={}", name, value);
  }
  const std::pair<const char*, const char*> parameters[] = {
      {"host", options.socket_dir.c_str()},
      {"port", port.c_str()},
      {"user", options.user.c_str()},
      {"dbname", options.database.c_str()},
      {"application_name", options.application_name.c_str()},
      {"options", server_options.c_str()},
      {"client_encoding", "UTF8"},
      {"sslmode", options.ssl_mode.c_str()},
      {"passfile", options.passfile.c_str()},
      {"gssencmode", "disable"},
  };
  std::vector<const char*> names, values;
  for (const auto& [name, value] : parameters) {
    if (*value == '\0' && std::string_view(name) != "host") continue;
    names.push_back(name);
    values.push_back(value);
  }
  names.push_back(nullptr);
  values.push_back(nullptr);
  UniqueConnection connection(PQconnectStartParams(names.data(), values.data(), 0));
  if (!connection) return absl::ResourceExhaustedError("connect to postgres: out of memory");
  if (PQstatus(connection.get()) == CONNECTION_BAD) return ConnectError(options, connection.get());
  const base::MonotonicTime deadline = Now() + options.connect_timeout;
  PostgresPollingStatusType step = PGRES_POLLING_WRITING;
  while (step != PGRES_POLLING_OK) {
    if (step == PGRES_POLLING_FAILED) return ConnectError(options, connection.get());
    const absl::Status waited =
        WaitSocket(PQsocket(connection.get()), step == PGRES_POLLING_READING ? POLLIN : POLLOUT,
                   deadline, nullptr);
    if (!waited.ok()) {
      return base::Error(
          waited.code(), "connect to {}/.s.PGSQL.{}: postgres did not answer within {}",
          options.socket_dir, options.port, absl::FormatDuration(options.connect_timeout));
    }
    step = PQconnectPoll(connection.get());
  }
  if (PQsetnonblocking(connection.get(), 1) != 0) return ConnectError(options, connection.get());
  // The pid of a backend elsewhere names nothing here, or somebody else.
  const bool local = options.socket_dir.starts_with('/');
  return std::unique_ptr<SqlSession>(new LibpqSession(std::move(connection), local));
}

}  // namespace metal::pg
