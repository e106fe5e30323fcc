// A standby as its SQL session shows it: settings in files and in force, a WAL receiver that ends
// some time after primary_conninfo is cleared, replay that catches up step by step. Time moves by
// the simulated clock's Sleep. Threading: not thread-safe.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "agent/base/units.h"
#include "agent/pg/session.h"
#include "fmt/format.h"

namespace metal::node {

struct SimulatedStandby {
  int version = 150000;
  bool in_recovery = true;
  std::map<std::string, std::string> stored = {{"primary_conninfo", "host=up"},
                                               {"restore_command", "fetch %f"}};
  std::map<std::string, std::string> in_force = stored;
  bool receiver = true;
  int receiver_pid = 99;
  std::string receiver_status = "streaming";
  int receiver_polls_left = 3;    // looks until it is gone once its source is
  uint64_t received = 0x5000100;  // 0: never streamed
  uint64_t replayed = 0x5000000;
  uint64_t replay_step = 0x40;  // at each look at the state
  bool paused = false;
  std::string wait_event;  // of the startup process, once replay stands still
  int reloads = 0;

  void Reload() {
    ++reloads;
    in_force["primary_conninfo"] = stored["primary_conninfo"];
    if (version >= 140000) in_force["restore_command"] = stored["restore_command"];
  }
};

class StandbySession final : public pg::SqlSession {
 public:
  explicit StandbySession(SimulatedStandby& standby) : standby_(standby) {}

  using pg::SqlSession::Query;
  absl::StatusOr<pg::SqlResult> Query(const std::string& sql,
                                      const std::vector<pg::SqlValue>& parameters,
                                      const pg::QueryOptions&) override {
    if (sql.starts_with("ALTER SYSTEM SET ")) {
      const std::string rest = sql.substr(17);
      standby_.stored[rest.substr(0, rest.find(' '))] = "";
      return pg::SqlResult();
    }
    if (sql.find("pg_reload_conf") != std::string::npos) {
      standby_.Reload();
      return pg::SqlResult();
    }
    if (sql.find("current_setting($1") != std::string::npos) {
      return One("value", standby_.in_force[parameters.at(0).value_or("")]);
    }
    if (sql.find("pg_stat_wal_receiver") != std::string::npos) return Receiver();
    if (sql.find("backend_type = 'startup'") != std::string::npos) {
      return One("wait_event", standby_.wait_event);
    }
    if (sql.find("pg_is_in_recovery()") != std::string::npos) return State();
    return absl::InternalError("unexpected statement: " + sql);
  }
  bool connected() const override { return true; }
  int server_version() const override { return standby_.version; }
  int backend_pid() const override { return 4711; }

 private:
  static pg::SqlResult One(const std::string& column, const std::string& value) {
    return {{column}, {{value}}};
  }
  absl::StatusOr<pg::SqlResult> Receiver() {
    if (standby_.receiver && standby_.in_force["primary_conninfo"].empty() &&
        standby_.receiver_polls_left-- <= 0) {
      standby_.receiver = false;
    }
    pg::SqlResult result{{"pid", "status"}, {}};
    if (standby_.receiver) {
      result.rows.push_back({std::to_string(standby_.receiver_pid), standby_.receiver_status});
    }
    return result;
  }
  absl::StatusOr<pg::SqlResult> State() {
    if (!standby_.paused && standby_.received > standby_.replayed) {
      standby_.replayed = std::min(standby_.received, standby_.replayed + standby_.replay_step);
    }
    const auto lsn = [](uint64_t value) -> pg::SqlValue {
      if (value == 0) return std::nullopt;
      return base::Lsn{value}.ToString();
    };
    return pg::SqlResult{
        {"version_num", "in_recovery", "received", "replayed", "pause_state", "control_timeline"},
        {{fmt::format("{}", standby_.version), standby_.in_recovery ? "t" : "f",
          lsn(standby_.received), lsn(standby_.replayed), standby_.paused ? "paused" : "not paused",
          "3"}}};
  }

  SimulatedStandby& standby_;
};

}  // namespace metal::node
