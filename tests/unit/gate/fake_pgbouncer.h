// FakePgbouncer: a process and a console with PgBouncer's behaviour, in memory: paused or not,
// where it leads, transactions that do not end, death, a stop by a signal. Threading: one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/gate/console.h"
#include "agent/gate/process.h"

namespace metal::gate {

class FakePgbouncer final : public DoorProcess {
 public:
  FakePgbouncer(std::string ini_path, base::Clock& clock)
      : ini_path_(std::move(ini_path)), clock_(clock) {}

  // ---- what the world does ----
  bool runs = false;    // also when nobody holds it: an earlier agent's
  bool frozen = false;  // the console answers nothing
  bool can_launch = true;
  int transactions = 0;  // at the server
  void AgentDies() { held_ = false; }
  void Die() {
    runs = false;
    Reset();
  }

  // ---- what it is told ----
  bool paused = false;
  std::string in_force;               // the configuration that it read last
  std::vector<std::string> commands;  // but for SHOW
  int launches = 0, stops = 0;
  std::string launched_with;
  bool LeadsTo(const std::string& text) const {
    return in_force.find("* = " + text + "\n") != std::string::npos;
  }
  // A client that asks for something now gets a server.
  bool LetsThrough() const { return runs && !paused; }

  // ---- DoorProcess ----
  bool Adopt() override {
    held_ = runs;
    return held_;
  }
  absl::Status Launch() override {
    ++launches;
    if (!can_launch) return absl::FailedPreconditionError("cannot listen");
    runs = held_ = true;
    ++pid_;
    in_force = launched_with = base::ReadFile(ini_path_).value_or("");
    return absl::OkStatus();
  }
  bool alive() const override { return held_ && runs; }
  pid_t pid() const override { return launches > 0 ? pid_ : 0; }
  int exit_fd() const override { return -1; }
  std::string LastWords() const override { return ""; }
  void Stop() override {
    ++stops;
    Die();
  }

  ConsoleFactory Consoles() {
    return [this](absl::Duration timeout) -> absl::StatusOr<std::unique_ptr<Console>> {
      if (!runs) return absl::UnavailableError("nobody listens");
      if (frozen) {
        clock_.Sleep(timeout);
        return absl::DeadlineExceededError("no answer");
      }
      return std::make_unique<FakeConsole>(*this);
    };
  }

 private:
  class FakeConsole final : public Console {
   public:
    explicit FakeConsole(FakePgbouncer& pgbouncer) : fake_(pgbouncer), pid_(pgbouncer.pid_) {}
    absl::StatusOr<ConsoleRows> Run(const std::string& command, const ConsoleWait& wait) override {
      if (!connected_ || !fake_.runs || pid_ != fake_.pid_) {
        connected_ = false;
        return absl::UnavailableError("the console is lost");
      }
      if (fake_.frozen) {
        connected_ = false;
        fake_.clock_.Sleep(wait.timeout);
        return absl::DeadlineExceededError("no answer");
      }
      if (command == "SHOW POOLS") return fake_.Pools();
      fake_.commands.push_back(command);
      if (command == "RELOAD") fake_.in_force = base::ReadFile(fake_.ini_path_).value_or("");
      if (command == "RESUME") {
        if (!fake_.paused) return absl::FailedPreconditionError("pooler is not paused/suspended");
        fake_.paused = false;
      }
      if (command == "PAUSE") {
        if (fake_.paused) return absl::FailedPreconditionError("already suspended/paused");
        fake_.paused = true;
        if (fake_.transactions > 0) {
          connected_ = false;
          if (wait.interrupted && wait.interrupted()) return absl::CancelledError("interrupted");
          fake_.clock_.Sleep(wait.timeout);
          return absl::DeadlineExceededError("no answer");
        }
      }
      return ConsoleRows();
    }
    bool connected() const override { return connected_; }

   private:
    FakePgbouncer& fake_;
    const pid_t pid_;
    bool connected_ = true;
  };

  ConsoleRows Pools() const {
    ConsoleRows rows;
    rows.columns = {"database", "cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_login"};
    rows.rows = {{"pgbouncer", "1", "0", "0", "0", "0"},
                 {"app", "5", paused ? "3" : "0", fmt::format("{}", transactions), "2", "0"}};
    return rows;
  }
  void Reset() { paused = false; }

  const std::string ini_path_;
  base::Clock& clock_;
  bool held_ = false;
  pid_t pid_ = 100;
};

}  // namespace metal::gate
