// SupervisorTest: a supervisor of a fake PostgreSQL, with its board and its events.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/file.h"
#include "agent/base/mutex.h"
#include "agent/pg/supervisor.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/pg/fake_postmaster.h"

namespace metal::pg {

// A listener of this process on a free TCP port.
class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(fd_.get(), generic, length), 0);
    EXPECT_EQ(listen(fd_.get(), 1), 0);
    EXPECT_EQ(getsockname(fd_.get(), generic, &length), 0);
    port_ = ntohs(address.sin_port);
  }
  int port() const { return port_; }

 private:
  base::UniqueFd fd_;
  int port_ = 0;
};

class SupervisorTest : public ::testing::Test {
 protected:
  void MakeSupervisor() {
    MakeIdleSupervisor();
    ASSERT_OK(supervisor_->Begin());
  }
  // Its watch does not run.
  void MakeIdleSupervisor() {
    SupervisorOptions options;
    options.data_dir = cluster_.data_dir();
    options.state_dir = cluster_.state_dir();
    options.socket_dir = cluster_.socket_dir();
    options.port = port_;
    options.listen_addresses = "127.0.0.1";
    options.restart_max = 2;
    options.no_progress_limit = no_progress_limit_;
    options.move_to_scope = [this](pid_t pid) {
      base::MutexLock lock(scope_mutex_);
      moved_to_scope_.push_back(pid);
      return scope_;
    };
    options.lock_directory = [this] { return directory_lock_; };
    options.check_drives = [this] { return drives_; };
    options.role_for_launch = role_for_launch_;
    options.held_down = [this] { return std::string(held_down_ ? "its disk is sick" : ""); };
    options.may_be_primary = [this] { return may_be_primary_.load(); };
    options.comes_back_as_standby = [this] { return shares_commits_.load(); };
    supervisor_ = std::make_unique<PostgresSupervisor>(options, cluster_.install(), board_, events_,
                                                       base::RealClock());
  }
  observe::PostgresState state() { return board_.Get()->postgres.state; }
  // Waits for a published state through the board itself.
  bool Await(const std::function<bool(const observe::PostgresSection&)>& condition) {
    const base::MonotonicTime deadline = base::RealClock().Monotonic() + absl::Seconds(20);
    while (base::RealClock().Monotonic() < deadline) {
      const auto status = board_.Get();
      if (condition(status->postgres)) return true;
      board_.WaitAfter(status->revision, absl::Milliseconds(100));
    }
    return false;
  }
  bool AwaitState(observe::PostgresState wanted) {
    return Await(
        [wanted](const observe::PostgresSection& section) { return section.state == wanted; });
  }
  bool HasStandbySignal() { return base::PathExists(cluster_.data_dir() + "/standby.signal"); }

  FakeCluster cluster_;
  int port_ = cluster_.port();
  absl::Duration no_progress_limit_ = absl::Seconds(60);
  absl::Status directory_lock_, drives_;
  absl::Status scope_;  // the answer to a move
  base::Mutex scope_mutex_;
  std::vector<pid_t> moved_to_scope_;  // the watch moves too
  std::function<StartRole()> role_for_launch_;
  std::atomic<StartRole> launch_role_ = StartRole::kPrimary;
  std::atomic<bool> may_be_primary_ = true;
  std::atomic<bool> shares_commits_ = false;
  std::atomic<bool> held_down_ = false;
  observe::StatusBoard board_{base::RealClock()};
  metal::testing::RecordedEvents events_;
  std::unique_ptr<PostgresSupervisor> supervisor_;
};

}  // namespace metal::pg
