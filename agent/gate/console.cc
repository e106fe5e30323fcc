#include "agent/gate/console.h"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <utility>

#include "agent/base/clock.h"
#include "agent/base/status.h"

namespace metal::gate {
namespace {

constexpr absl::Duration kInterruptPoll = absl::Milliseconds(5);

struct FinishConnection {
  void operator()(PGconn* connection) const { PQfinish(connection); }
};
using UniqueConnection = std::unique_ptr<PGconn, FinishConnection>;
struct ClearResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using UniqueResult = std::unique_ptr<PGresult, ClearResult>;

base::MonotonicTime Now() { return base::RealClock().Monotonic(); }

// libpq's messages have several lines.
std::string OneLine(const char* text) {
  std::string line(text == nullptr ? "" : text);
  std::ranges::replace(line, '\n', ' ');
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

absl::Status WaitSocket(int fd, short events, base::MonotonicTime deadline,
                        const std::function<bool()>& interrupted) {
  while (true) {
    if (interrupted && interrupted()) return absl::CancelledError("interrupted");
    const absl::Duration left = deadline - Now();
    if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("timed out");
    const absl::Duration slice = interrupted ? std::min(left, kInterruptPoll) : left;
    pollfd entry{fd, events, 0};
    const int64_t ms = std::clamp<int64_t>(absl::ToInt64Milliseconds(slice), 1, 60'000);
    const int ready = poll(&entry, 1, static_cast<int>(ms));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return base::ErrnoStatus(errno, "poll", "pgbouncer's console");
  }
}

ConsoleRows ReadRows(const PGresult* result) {
  ConsoleRows answer;
  const int columns = PQnfields(result);
  for (int column = 0; column < columns; ++column)
    answer.columns.emplace_back(PQfname(result, column));
  for (int row = 0; row < PQntuples(result); ++row) {
    std::vector<std::string>& values = answer.rows.emplace_back();
    for (int column = 0; column < columns; ++column)
      values.emplace_back(PQgetvalue(result, row, column));
  }
  return answer;
}

class LibpqConsole final : public Console {
 public:
  explicit LibpqConsole(UniqueConnection connection) : connection_(std::move(connection)) {}

  absl::StatusOr<ConsoleRows> Run(const std::string& command, const ConsoleWait& wait) override {
    if (connection_ == nullptr) return absl::UnavailableError("pgbouncer's console is closed");
    if (PQsendQuery(connection_.get(), command.c_str()) == 0) return Lost(command);
    absl::StatusOr<ConsoleRows> answer = ConsoleRows();
    const absl::Status waited = Collect(Now() + wait.timeout, wait.interrupted, answer);
    if (waited.ok()) return answer;
    if (absl::IsUnavailable(waited)) return Lost(command);
    connection_.reset();
    return base::Error(
        waited.code(), "pgbouncer: {}: {}", command,
        waited.message() == "interrupted"
            ? "interrupted"
            : fmt::format("no answer within {}", absl::FormatDuration(wait.timeout)));
  }

  bool connected() const override { return connection_ != nullptr; }

 private:
  absl::Status Lost(const std::string& command) {
    absl::Status status =
        base::Error(absl::StatusCode::kUnavailable, "pgbouncer: {}: the console is lost: {}",
                    command, OneLine(PQerrorMessage(connection_.get())));
    connection_.reset();
    return status;
  }

  // Reads up to the end of the command. UNAVAILABLE: the connection is lost.
  absl::Status Collect(base::MonotonicTime deadline, const std::function<bool()>& interrupted,
                       absl::StatusOr<ConsoleRows>& answer) {
    while (true) {
      if (PQflush(connection_.get()) < 0) return absl::UnavailableError("lost");
      while (PQisBusy(connection_.get()) != 0) {
        METAL_RETURN_IF_ERROR(
            WaitSocket(PQsocket(connection_.get()), POLLIN, deadline, interrupted));
        if (PQconsumeInput(connection_.get()) == 0) return absl::UnavailableError("lost");
      }
      UniqueResult result(PQgetResult(connection_.get()));
      if (!result) break;
      const ExecStatusType status = PQresultStatus(result.get());
      if (status == PGRES_TUPLES_OK) {
        answer = ReadRows(result.get());
      } else if (status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY) {
        const char* text = PQresultErrorField(result.get(), PG_DIAG_MESSAGE_PRIMARY);
        answer = absl::FailedPreconditionError(
            OneLine(text == nullptr ? PQresultErrorMessage(result.get()) : text));
      }
    }
    return PQstatus(connection_.get()) == CONNECTION_BAD ? absl::UnavailableError("lost")
                                                         : absl::OkStatus();
  }

  UniqueConnection connection_;
};

absl::StatusOr<std::unique_ptr<Console>> Connect(const std::string& socket_dir, int port,
                                                 absl::Duration timeout) {
  const std::string port_text = fmt::format("{}", port);
  const char* const names[] = {"host",    "port",       "user",    "dbname",
                               "sslmode", "gssencmode", "options", nullptr};
  const char* const values[] = {socket_dir.c_str(), port_text.c_str(), "pgbouncer", "pgbouncer",
                                "disable",          "disable",         "",          nullptr};
  const base::MonotonicTime deadline = Now() + timeout;
  UniqueConnection connection(PQconnectStartParams(names, values, 0));
  if (!connection) return absl::ResourceExhaustedError("connect to pgbouncer: out of memory");
  PostgresPollingStatusType next = PGRES_POLLING_WRITING;
  while (true) {
    if (PQstatus(connection.get()) == CONNECTION_BAD || next == PGRES_POLLING_FAILED) {
      return base::Error(absl::StatusCode::kUnavailable, "connect to pgbouncer: {}",
                         OneLine(PQerrorMessage(connection.get())));
    }
    if (next == PGRES_POLLING_OK) break;
    const short events = next == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    const absl::Status ready = WaitSocket(PQsocket(connection.get()), events, deadline, nullptr);
    if (absl::IsDeadlineExceeded(ready)) {
      return base::Error(absl::StatusCode::kDeadlineExceeded,
                         "connect to pgbouncer: no answer within {}",
                         absl::FormatDuration(timeout));
    }
    if (!ready.ok()) return ready;
    next = PQconnectPoll(connection.get());
  }
  PQsetnonblocking(connection.get(), 1);
  return std::make_unique<LibpqConsole>(std::move(connection));
}

}  // namespace

std::string ConsoleRows::Text(size_t row, std::string_view column) const {
  const auto found = std::ranges::find(columns, column);
  if (row >= rows.size() || found == columns.end()) return "";
  const auto index = static_cast<size_t>(found - columns.begin());
  return index < rows[row].size() ? rows[row][index] : "";
}

int64_t ConsoleRows::Number(size_t row, std::string_view column) const {
  const std::string text = Text(row, column);
  int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

ConsoleFactory LibpqConsoles(std::string socket_dir, int port) {
  return [socket_dir = std::move(socket_dir), port](absl::Duration timeout) {
    return Connect(socket_dir, port, timeout);
  };
}

}  // namespace metal::gate
