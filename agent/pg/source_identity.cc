// IdentifySource: IDENTIFY_SYSTEM and TIMELINE_HISTORY on a walsender, which speaks the simple
// query protocol only.
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>

#include "agent/base/clock.h"
#include "agent/base/status.h"
#include "agent/pg/replication_source.h"

namespace metal::pg {
namespace {

struct FinishConnection {
  void operator()(PGconn* connection) const { PQfinish(connection); }
};
using Connection = std::unique_ptr<PGconn, FinishConnection>;
struct ClearResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, ClearResult>;

std::string OneLine(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

absl::Status Failed(const ReplicationSource& source, PGconn* connection) {
  const std::string message = OneLine(PQerrorMessage(connection));
  absl::StatusCode code = absl::StatusCode::kUnavailable;
  for (const char* text : {"authentication failed", "no pg_hba.conf entry", "does not exist",
                           "permission denied", "no password supplied"}) {
    if (message.find(text) != std::string::npos) code = absl::StatusCode::kPermissionDenied;
  }
  return base::Error(code, "replication connection to {}:{} as {}: {}", source.host, source.port,
                     source.user, message);
}

absl::Status Late(const ReplicationSource& source, absl::Duration timeout) {
  return base::Error(absl::StatusCode::kUnavailable,
                     "replication connection to {}:{}: no answer within {}", source.host,
                     source.port, absl::FormatDuration(timeout));
}

class Walsender {
 public:
  Walsender(const ReplicationSource& source, absl::Duration timeout)
      : source_(source), timeout_(timeout), deadline_(base::RealClock().Monotonic() + timeout) {}

  absl::Status Connect() {
    const std::string conninfo = ConnInfo(source_) + " replication='true' dbname='replication'";
    connection_.reset(PQconnectStart(conninfo.c_str()));
    if (!connection_) return absl::ResourceExhaustedError("replication connection: out of memory");
    PostgresPollingStatusType step = PGRES_POLLING_WRITING;
    while (step != PGRES_POLLING_OK) {
      if (PQstatus(connection_.get()) == CONNECTION_BAD || step == PGRES_POLLING_FAILED) {
        return Failed(source_, connection_.get());
      }
      METAL_RETURN_IF_ERROR(Wait(step == PGRES_POLLING_READING ? POLLIN : POLLOUT));
      step = PQconnectPoll(connection_.get());
    }
    return absl::OkStatus();
  }

  // The one row that the command answers with.
  absl::StatusOr<Result> Ask(const std::string& command) {
    if (PQsendQuery(connection_.get(), command.c_str()) == 0) {
      return Failed(source_, connection_.get());
    }
    Result answer;
    while (true) {
      while (PQisBusy(connection_.get()) != 0) {
        METAL_RETURN_IF_ERROR(Wait(POLLIN));
        if (PQconsumeInput(connection_.get()) == 0) return Failed(source_, connection_.get());
      }
      Result result(PQgetResult(connection_.get()));
      if (!result) break;
      if (PQresultStatus(result.get()) != PGRES_TUPLES_OK) {
        return base::Error(absl::StatusCode::kUnavailable, "{} at {}:{}: {}", command, source_.host,
                           source_.port, OneLine(PQresultErrorMessage(result.get())));
      }
      answer = std::move(result);
    }
    if (answer == nullptr || PQntuples(answer.get()) != 1 || PQnfields(answer.get()) < 2) {
      return base::Error(absl::StatusCode::kDataLoss, "{} at {}:{}: no row came", command,
                         source_.host, source_.port);
    }
    return answer;
  }

 private:
  absl::Status Wait(short events) {
    const absl::Duration left = deadline_ - base::RealClock().Monotonic();
    if (left <= absl::ZeroDuration()) return Late(source_, timeout_);
    pollfd entry{PQsocket(connection_.get()), events, 0};
    const auto ms =
        static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(left) + 1, 1, 60'000));
    if (poll(&entry, 1, ms) < 0 && errno != EINTR) {
      return base::ErrnoStatus(errno, "poll", "replication connection");
    }
    return absl::OkStatus();
  }

  const ReplicationSource& source_;
  const absl::Duration timeout_;
  const base::MonotonicTime deadline_;
  Connection connection_;
};

template <typename Number>
bool ParseWhole(const char* text, Number& value) {
  const std::string_view view(text);
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  return error == std::errc() && end == view.data() + view.size();
}

}  // namespace

absl::StatusOr<SourceIdentity> IdentifySource(const ReplicationSource& source,
                                              absl::Duration timeout) {
  Walsender walsender(source, timeout);
  METAL_RETURN_IF_ERROR(walsender.Connect());
  METAL_ASSIGN_OR_RETURN(const Result system, walsender.Ask("IDENTIFY_SYSTEM"));
  SourceIdentity identity;
  const auto flushed = base::Lsn::Parse(PQgetvalue(system.get(), 0, 2));
  if (!ParseWhole(PQgetvalue(system.get(), 0, 0), identity.system_identifier) ||
      !ParseWhole(PQgetvalue(system.get(), 0, 1), identity.timeline) || !flushed) {
    return base::Error(absl::StatusCode::kDataLoss,
                       "IDENTIFY_SYSTEM at {}:{}: an answer that cannot be read", source.host,
                       source.port);
  }
  identity.flushed = *flushed;
  if (identity.timeline > 1) {
    METAL_ASSIGN_OR_RETURN(const Result history,
                           walsender.Ask(fmt::format("TIMELINE_HISTORY {}", identity.timeline)));
    identity.history = std::string(PQgetvalue(history.get(), 0, 1),
                                   static_cast<size_t>(PQgetlength(history.get(), 0, 1)));
  }
  return identity;
}

}  // namespace metal::pg
