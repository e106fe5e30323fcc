// FakePostgres: a server with behaviour behind the SqlSession seam. It keeps a state (recovery,
// positions, a running backup, loaded configuration), answers the statements of agent/pg from it,
// and fails on demand: down, hung, the Nth statement. A statement that nothing answers fails the
// call with UNIMPLEMENTED, so a forgotten one is seen. Threading: thread-safe; each session is of
// one thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/status.h"
#include "agent/base/units.h"
#include "agent/pg/session.h"

namespace metal::testing {

using SqlRow = std::vector<std::pair<std::string, pg::SqlValue>>;

inline pg::SqlResult MakeResult(const std::vector<SqlRow>& rows) {
  pg::SqlResult result;
  for (const SqlRow& row : rows) {
    result.rows.emplace_back();
    for (const auto& [name, value] : row) {
      if (result.rows.size() == 1) result.columns.push_back(name);
      result.rows.back().push_back(value);
    }
  }
  return result;
}

struct FakeServerState {
  int version = 150020;
  bool in_recovery = false;
  base::TimelineId timeline = 1;
  base::TimelineId control_timeline = 1;
  base::Lsn lsn{0x3000060};      // insert, written and flushed on a primary
  base::Lsn received, replayed;  // on a standby
  int polls_until_promoted =
      -1;  // state queries after pg_promote; negative: pg_promote does nothing
  bool promote_requested = false;
  std::string wal_level = "replica";
  std::string archive_mode = "on";
  int ready_segments = 0;
  std::optional<SqlRow> receiver;  // the row of pg_stat_wal_receiver
  std::vector<SqlRow> followers;
  std::string tablespace_oids = "1663,1664";
  bool backup_running = false;
  base::Lsn backup_start;
  std::string backup_label_text;  // set at the start
  int64_t config_loads = 1;
  bool ignores_reload = false;
  std::vector<std::string> pending_restart;
  std::vector<SqlRow> file_errors;  // file, line, name, error
  std::vector<SqlRow> settings;     // rows of pg_settings
};

class FakePostgres {
 public:
  explicit FakePostgres(base::Clock& clock) : clock_(clock) {}

  using Answer =
      std::function<absl::StatusOr<pg::SqlResult>(const std::vector<pg::SqlValue>& parameters)>;
  // Statements that hold `fragment` are answered by `answer` before the built-in answers.
  void On(std::string fragment, Answer answer) {
    base::MutexLock lock(mutex_);
    answers_.insert(answers_.begin(), {std::move(fragment), std::move(answer)});
  }
  void Change(const std::function<void(FakeServerState&)>& change) {
    base::MutexLock lock(mutex_);
    change(state_);
  }
  FakeServerState state() {
    base::MutexLock lock(mutex_);
    return state_;
  }
  // Down: connects fail and every session is lost. Hung: nothing answers; calls take their whole
  // timeout.
  void set_down(bool down) {
    base::MutexLock lock(mutex_);
    down_ = down;
    if (down) ++generation_;
  }
  void set_hung(bool hung) {
    base::MutexLock lock(mutex_);
    hung_ = hung;
  }
  // The Nth statement from now (1: the next) fails. `lose` closes the session too.
  void FailStatement(int nth, absl::Status status, bool lose = false) {
    base::MutexLock lock(mutex_);
    fail_at_ = statements_.size() + static_cast<size_t>(nth);
    failure_ = std::move(status);
    lose_ = lose;
  }
  // The row of the built-in answer to QueryServerState.
  pg::SqlResult StateNow() {
    base::MutexLock lock(mutex_);
    return StateRow();
  }
  std::vector<std::string> statements() {
    base::MutexLock lock(mutex_);
    return statements_;
  }
  int connects() {
    base::MutexLock lock(mutex_);
    return connects_;
  }

  absl::StatusOr<std::unique_ptr<pg::SqlSession>> Connect();
  pg::SessionFactory factory() {
    return [this] { return Connect(); };
  }

 private:
  friend class FakeSqlSession;

  static std::string Flag(bool value) { return value ? "t" : "f"; }
  static std::string Text(base::Lsn lsn) { return lsn.ToString(); }
  static pg::SqlValue If(bool condition, const std::string& text) {
    return condition ? pg::SqlValue(text) : std::nullopt;
  }
  pg::SqlResult StateRow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  pg::SqlResult WaitRow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  pg::SqlResult StartBackup(const std::vector<pg::SqlValue>& parameters)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<pg::SqlResult> BuiltIn(const std::string& sql,
                                        const std::vector<pg::SqlValue>& parameters)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<pg::SqlResult> Run(const std::string& sql,
                                    const std::vector<pg::SqlValue>& parameters,
                                    const pg::QueryOptions& options, int generation, bool& lost);

  base::Clock& clock_;
  base::Mutex mutex_;
  FakeServerState state_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<std::string, Answer>> answers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> statements_ ABSL_GUARDED_BY(mutex_);
  bool down_ ABSL_GUARDED_BY(mutex_) = false, hung_ ABSL_GUARDED_BY(mutex_) = false;
  int generation_ ABSL_GUARDED_BY(mutex_) = 0;
  int connects_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t fail_at_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool lose_ ABSL_GUARDED_BY(mutex_) = false;
};

class FakeSqlSession final : public pg::SqlSession {
 public:
  FakeSqlSession(FakePostgres& server, int generation, int version)
      : server_(server), generation_(generation), version_(version) {}
  ~FakeSqlSession() override {
    // As the server does: a closed connection ends its backup.
    if (owns_backup_) server_.Change([](FakeServerState& state) { state.backup_running = false; });
  }
  using SqlSession::Query;
  absl::StatusOr<pg::SqlResult> Query(const std::string& sql,
                                      const std::vector<pg::SqlValue>& parameters,
                                      const pg::QueryOptions& options) override {
    if (!connected_) return absl::UnavailableError("connection to postgres is closed");
    bool lost = false;
    auto result = server_.Run(sql, parameters, options, generation_, lost);
    if (lost) connected_ = false;
    if (result.ok() && sql.find("backup") != std::string::npos) {
      owns_backup_ = server_.state().backup_running;
    }
    return result;
  }
  bool connected() const override { return connected_; }
  int server_version() const override { return version_; }
  int backend_pid() const override { return 4242; }

 private:
  FakePostgres& server_;
  const int generation_;
  const int version_;
  bool connected_ = true;
  bool owns_backup_ = false;
};

inline absl::StatusOr<std::unique_ptr<pg::SqlSession>> FakePostgres::Connect() {
  base::MutexLock lock(mutex_);
  ++connects_;
  if (down_) return absl::UnavailableError("connect: no such file or directory");
  if (hung_) return absl::DeadlineExceededError("connect: postgres did not answer");
  return std::unique_ptr<pg::SqlSession>(new FakeSqlSession(*this, generation_, state_.version));
}

inline absl::StatusOr<pg::SqlResult> FakePostgres::Run(const std::string& sql,
                                                       const std::vector<pg::SqlValue>& parameters,
                                                       const pg::QueryOptions& options,
                                                       int generation, bool& lost) {
  Answer answer;
  {
    base::MutexLock lock(mutex_);
    if (down_ || generation != generation_) {
      lost = true;
      return absl::UnavailableError("connection to postgres is lost");
    }
    statements_.push_back(sql);
    if (hung_) {
      clock_.Sleep(options.timeout);
      return absl::DeadlineExceededError("statement timed out");
    }
    if (fail_at_ == statements_.size()) {
      lost = lose_;
      return failure_;
    }
    for (const auto& [fragment, candidate] : answers_) {
      if (sql.find(fragment) != std::string::npos) {
        answer = candidate;
        break;
      }
    }
    if (!answer) return BuiltIn(sql, parameters);
  }
  return answer(parameters);  // without the lock: it may change the state
}

inline pg::SqlResult FakePostgres::StateRow() {
  FakeServerState& s = state_;
  if (s.promote_requested && s.polls_until_promoted >= 0 && s.polls_until_promoted-- == 0) {
    s.in_recovery = false;
    s.timeline += 1;
    s.lsn = s.replayed;
  }
  const bool primary = !s.in_recovery;
  return MakeResult({{
      {"version_num", std::to_string(s.version)},
      {"version", fmt::format("{}.{} (Debian)", s.version / 10000, s.version % 10000)},
      {"start_time", "1800000000"},
      {"now", fmt::format("{:.6f}", absl::ToDoubleSeconds(clock_.Now() - absl::UnixEpoch()))},
      {"in_recovery", Flag(s.in_recovery)},
      {"current", If(primary, Text(s.lsn))},
      {"flush", If(primary, Text(s.lsn))},
      {"insert", If(primary, Text(s.lsn))},
      {"wal_timeline", If(primary, fmt::format("{:08X}", s.timeline))},
      {"received", If(!primary && s.received.valid(), Text(s.received))},
      {"replayed", If(!primary, Text(s.replayed))},
      {"last_commit", std::nullopt},
      {"pause_state", If(!primary, "not paused")},
      {"tablespaces", s.tablespace_oids},
      {"received_timeline", std::nullopt},
      {"control_timeline", std::to_string(s.control_timeline)},
      {"recovery_timeline", If(!primary, std::to_string(s.timeline))},
      {"system_identifier", "7000000000000000001"},
      {"data_checksums", "on"},
      {"max_connections", "100"},
      {"wal_segment_size", "16777216"},
      {"connections", "3"},
      {"checksum_failures", "0"},
      {"pending_restart", Flag(!s.pending_restart.empty())},
  }});
}

inline pg::SqlResult FakePostgres::WaitRow() {
  const FakeServerState& s = state_;
  const bool primary = !s.in_recovery;
  return MakeResult({{{"flush", If(primary, Text(s.lsn))},
                      {"wal_timeline", If(primary, fmt::format("{:08X}", s.timeline))},
                      {"received", If(!primary && s.received.valid(), Text(s.received))},
                      {"replayed", If(!primary, Text(s.replayed))},
                      {"written", std::nullopt},
                      {"received_timeline", std::nullopt},
                      {"control_timeline", std::to_string(s.timeline)}}});
}

inline pg::SqlResult FakePostgres::StartBackup(const std::vector<pg::SqlValue>& parameters) {
  FakeServerState& s = state_;
  s.backup_running = true;
  s.backup_start = s.in_recovery ? s.replayed : s.lsn;
  s.backup_label_text = fmt::format(
      "START WAL LOCATION: {} (file {})\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: streamed\n"
      "BACKUP FROM: {}\nSTART TIME: 2026-11-22 02:00:00 UTC\nLABEL: {}\nSTART TIMELINE: {}\n",
      Text(s.backup_start), base::WalFileName(s.timeline, s.backup_start, 16 << 20),
      Text(s.backup_start), s.in_recovery ? "standby" : "primary", parameters.at(0).value_or(""),
      s.timeline);
  return MakeResult({{{"lsn", Text(s.backup_start)}}});
}

inline absl::StatusOr<pg::SqlResult> FakePostgres::BuiltIn(
    const std::string& sql, const std::vector<pg::SqlValue>& parameters) {
  FakeServerState& s = state_;
  const auto has = [&](const char* fragment) { return sql.find(fragment) != std::string::npos; };
  if (sql.starts_with("SET ") || sql.starts_with("RESET ")) return pg::SqlResult{};
  if (has("to_regclass('metal.")) return MakeResult({{{"present", "f"}}});
  if (sql == "CHECKPOINT") {
    s.control_timeline = s.timeline;
    return pg::SqlResult{};
  }
  if (has("server_version_num")) return StateRow();
  if (has("w.written_lsn AS written")) return WaitRow();
  if (has("pg_promote")) {
    s.promote_requested = true;
    return MakeResult({{{"asked", "t"}}});
  }
  if (has("FROM pg_stat_wal_receiver")) {
    return s.receiver ? MakeResult({*s.receiver}) : pg::SqlResult{};
  }
  if (has("FROM pg_stat_replication")) return MakeResult(s.followers);
  if (has("pg_stat_archiver")) {
    return MakeResult(
        {{{"mode", s.archive_mode},
          {"command", "push"},
          {"archived_count", "5"},
          {"failed_count", "0"},
          {"ready", std::to_string(s.ready_segments)},
          {"backlog", std::to_string(int64_t{s.ready_segments} << 24)},
          {"oldest_age", s.ready_segments > 0 ? pg::SqlValue("12.5") : std::nullopt}}});
  }
  if (has("pg_backup_start") || has("pg_start_backup")) return StartBackup(parameters);
  if (has("pg_backup_stop") || has("pg_stop_backup")) {
    s.backup_running = false;
    const base::Lsn end = s.in_recovery ? s.replayed : s.lsn;
    if (!s.in_recovery) s.lsn.value = (s.lsn.value / (16 << 20) + 1) * (16 << 20);
    return MakeResult(
        {{{"lsn", Text(end)}, {"labelfile", s.backup_label_text}, {"spcmapfile", ""}}});
  }
  if (has("AS wal_level")) {
    return MakeResult({{{"standby", Flag(s.in_recovery)},
                        {"wal_level", s.wal_level},
                        {"system_identifier", "7000000000000000001"},
                        {"timeline", std::to_string(s.timeline)},
                        {"wal_segment_size", "16777216"}}});
  }
  if (has("min_recovery_end_timeline AS timeline")) {
    return MakeResult({{{"timeline", std::to_string(s.timeline)}}});
  }
  if (has("pg_current_wal_insert_lsn")) {
    return MakeResult({{{"lsn", Text(s.in_recovery ? s.replayed : s.lsn)}}});
  }
  if (has("pg_is_in_recovery() AS r")) return MakeResult({{{"r", Flag(s.in_recovery)}}});
  if (has("pg_reload_conf")) {
    if (!s.ignores_reload) ++s.config_loads;
    return MakeResult({{{"asked", "t"}}});
  }
  if (has("pg_conf_load_time")) {
    return MakeResult({{{"loaded", std::to_string(1'800'000'000 + s.config_loads)}}});
  }
  if (has("WHERE pending_restart")) {
    std::vector<SqlRow> rows;
    for (const std::string& name : s.pending_restart) rows.push_back({{"name", name}});
    return MakeResult(rows);
  }
  if (has("pg_file_settings")) return MakeResult(s.file_errors);
  if (has("pg_hba_file_rules")) return pg::SqlResult{};
  if (has("FROM pg_settings")) return MakeResult(s.settings);
  return base::Error(absl::StatusCode::kUnimplemented, "fake postgres: no answer to: {}", sql);
}

}  // namespace metal::testing
