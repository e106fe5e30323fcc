#include "agent/node/leftover_archiver.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "agent/pg/settings.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

class LeftoverArchiverTest : public ::testing::Test {
 protected:
  LeftoverArchiverTest() {
    config_.pg_data_dir = data_.path();
    config_.state_dir = state_.path();
    config_.wal_helper = "/usr/bin/metal-wal";
    config_.wal_socket = "/run/metal/wal.sock";
    data_.Write("pg_wal/00000002.history", "1\t0/3000000\tno recovery target specified\n");
    data_.Write("pg_wal/archive_status/00000002.history.ready", "");
    status_.postgres.state = observe::PostgresState::kRunning;
    status_.postgres.role_observed = observe::Role::kStandby;
    status_.postgres.system_identifier = 7300000000000000001;
    status_.standby.receiver_state = "streaming";
    status_.archive.time.captured_at = base::RealClock().Now();
    status_.archive.mode = "on";
    status_.archive.command = pg::ArchiveCommand(config_.wal_helper, config_.wal_socket);
    status_.archive.ready_segments = 1;
  }
  bool Archives(const std::function<void(observe::NodeStatus&)>& change, absl::Duration patience) {
    observe::NodeStatus status = status_;
    change(status);
    LeftoverArchiver leftovers(config_, archive_);
    leftovers.Look(status);
    const base::MonotonicTime end = base::RealClock().Monotonic() + patience;
    const std::string done = data_.File("pg_wal/archive_status/00000002.history.done");
    while (!base::PathExists(done) && base::RealClock().Monotonic() < end) {
      base::RealClock().Sleep(absl::Milliseconds(2));
    }
    return base::PathExists(done);
  }

  metal::testing::TempDir data_, state_, repository_;
  base::AgentConfig config_;
  std::shared_ptr<backup::WalArchive> archive_ = std::make_shared<backup::WalArchive>(
      backup::WalArchiveOptions{.repository_path = repository_.File("repository")},
      base::RealClock(), nullptr);
  observe::NodeStatus status_;
};

TEST_F(LeftoverArchiverTest, AStandbyThatStreamsArchivesWhatIsLeft) {
  EXPECT_TRUE(Archives([](observe::NodeStatus&) {}, absl::Seconds(30)));
}

TEST_F(LeftoverArchiverTest, WhoeverArchivesItselfOrElsewhereOrMayHaveDivergedIsLeftAlone) {
  using Status = observe::NodeStatus;
  const std::pair<const char*, std::function<void(Status&)>> cases[] = {
      {"primary", [](Status& s) { s.postgres.role_observed = observe::Role::kPrimary; }},
      {"down", [](Status& s) { s.postgres.state = observe::PostgresState::kStopped; }},
      {"no stream", [](Status& s) { s.standby.receiver_state = ""; }},
      {"always", [](Status& s) { s.archive.mode = "always"; }},
      {"off", [](Status& s) { s.archive.mode = "off"; }},
      {"another command", [](Status& s) { s.archive.command = "cp %p /backup/%f"; }},
      {"a library", [](Status& s) { s.archive.library = "basic_archive"; }},
      {"nothing left", [](Status& s) { s.archive.ready_segments = 0; }},
      {"unknown cluster", [](Status& s) { s.postgres.system_identifier = 0; }},
      {"never looked at", [](Status& s) { s.archive.time.captured_at = absl::InfinitePast(); }},
  };
  for (const auto& [what, change] : cases) {
    EXPECT_FALSE(Archives(change, absl::Milliseconds(30))) << what;
  }
}

}  // namespace
}  // namespace metal::node
