// A whole node without PostgreSQL, for its tests. Threading: one thread, beside the node's own.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "agent/base/status.h"
#include "agent/node/node.h"
#include "gtest/gtest.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {

using ::metal::testing::ReasonOf;

inline RequestContext Request(const std::string& id, const std::string& body = "body") {
  RequestContext context;
  context.request_id = id;
  context.body_hash = body;
  context.caller = "test";
  return context;
}

class NodeTest : public ::testing::Test {
 protected:
  NodeTest() {
    config_.node_id = "n";
    config_.state_dir = directory_.path();
    config_.pg_data_dir = directory_.File("data");
    config_.pg_bin_dir = directory_.File("no-programs");
    config_.pg_socket_dir = directory_.path();
    config_.pg_superuser = "postgres";
    config_.os_user = "postgres";
    terms_ = TermStore::Open(directory_.File("term"), clock_, board_, events_);
    OperationManagerOptions options;
    options.path = directory_.File("operations.db");
    operations_ = *OperationManager::Open(options, clock_, board_, events_);
    install_ = std::make_unique<pg::Install>(config_.pg_bin_dir);
    pg::SupervisorOptions supervisor;
    supervisor.data_dir = config_.pg_data_dir;
    supervisor.state_dir = config_.state_dir;
    supervisor.socket_dir = config_.pg_socket_dir;
    supervisor_ =
        std::make_unique<pg::PostgresSupervisor>(supervisor, *install_, board_, events_, clock_);
    const pg::SessionFactory connect = Nobody();
    pg::ConfigEditor::Options editor;
    editor.data_dir = config_.pg_data_dir;
    editor.scratch_dir = config_.state_dir;
    editor_ = std::make_unique<pg::ConfigEditor>(editor, *install_, connect, clock_);
    disk::DiskMonitorOptions disks;
    disks.probe_enabled = false;
    disks_ = std::make_unique<disk::DiskMonitor>(disks, board_, events_, nullptr, clock_);
    MakeNode();
  }

  static pg::SessionFactory Nobody() {
    return []() -> absl::StatusOr<std::unique_ptr<pg::SqlSession>> {
      return absl::UnavailableError("nobody listens");
    };
  }
  void MakeNode() {
    node_ = std::make_unique<Node>(NodeParts{.config = config_,
                                             .clock = clock_,
                                             .board = board_,
                                             .events = events_,
                                             .terms = *terms_,
                                             .operations = *operations_,
                                             .install = *install_,
                                             .supervisor = *supervisor_,
                                             .config_editor = *editor_,
                                             .connect = Nobody(),
                                             .disks = *disks_,
                                             .data_lock = data_lock_});
  }

  // A restore that an earlier agent left running.
  Operation CutRestore(const std::string& directory) {
    Operation cut;
    cut.name = "operations/20260101T000000Z-0001";
    cut.spec.kind = "RestoreBackup";
    cut.spec.subject = directory;
    cut.spec.parameters = {{"backup", "backups/20260101T000000Z-F"},
                           {"recovery_target", "immediate"}};
    cut.state = OperationState::kRunning;
    cut.create_time = cut.start_time = cut.update_time = clock_.Now();
    return cut;
  }
  // The agent starts again and finds this in its journal.
  void RestartWith(const Operation& cut) {
    node_.reset();
    operations_.reset();
    const auto journal = OperationJournal::Open(directory_.File("operations.db"));
    ASSERT_OK((*journal)->Put(cut));
    OperationManagerOptions options;
    options.path = directory_.File("operations.db");
    operations_ = *OperationManager::Open(options, clock_, board_, events_);
    MakeNode();
    node_->Begin();
  }
  // What the server of this directory said of its terms.
  void KnowTerms() {
    observe::TermHistoryEntry row;
    row.term = 7;
    board_.Update([&](observe::NodeStatus& status) { status.term_history.entries = {row}; });
  }
  bool KnowsTerms() { return !board_.Get()->term_history.entries.empty(); }

  testing::TempDir directory_;
  base::AgentConfig config_;
  base::Clock& clock_ = base::RealClock();
  observe::StatusBoard board_{clock_};
  metal::testing::RecordedEvents events_;
  std::unique_ptr<TermStore> terms_;
  std::unique_ptr<OperationManager> operations_;
  std::unique_ptr<pg::Install> install_;
  std::unique_ptr<pg::PostgresSupervisor> supervisor_;
  std::unique_ptr<pg::ConfigEditor> editor_;
  std::unique_ptr<disk::DiskMonitor> disks_;
  std::optional<pg::DataDirectoryLock> data_lock_;
  std::unique_ptr<Node> node_;
};

}  // namespace metal::node
