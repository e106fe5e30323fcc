// A whole node without PostgreSQL: what it stores, refuses and repeats.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "agent/base/file.h"
#include "agent/pg/apply_config.h"
#include "tests/unit/node/node_fixture.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

TEST_F(NodeTest, TermIsStoredWhilePostgresIsDown) {
  BeginTermRequest request;
  request.holder = {4, "a"};
  ASSERT_OK_AND_ASSIGN(const BeginTermAnswer answer, node_->BeginTerm(Request("r1"), request));
  EXPECT_TRUE(answer.postgres_down);
  EXPECT_FALSE(answer.was_primary);
  EXPECT_EQ(answer.position.timeline, 0u);
  EXPECT_EQ(terms_->Get().term, 4u);
  request.holder = {3, "a"};
  EXPECT_EQ(ReasonOf(node_->BeginTerm(Request("r2"), request).status()), "STALE_TERM");
  request.holder = {4, "b"};
  EXPECT_EQ(ReasonOf(node_->BeginTerm(Request("r3"), request).status()), "TERM_HELD");
}

TEST_F(NodeTest, StandbySourcesAreClearedWhilePostgresIsDown) {
  const std::string path =
      directory_.Write("data/postgresql.auto.conf", "primary_conninfo = 'host=old'\n");
  BeginTermRequest request;
  request.holder = {4, "a"};
  ASSERT_OK(node_->BeginTerm(Request("r1"), request).status());
  EXPECT_THAT(*base::ReadFile(path), HasSubstr("primary_conninfo = ''"));
}

TEST_F(NodeTest, ARecorderOnTheDataDeviceIsWarnedOf) {
  directory_.Write("data/PG_VERSION", "15\n");
  config_.recorder_directory = directory_.File("not/there/yet");
  node_->Begin();
  EXPECT_TRUE(events_.Await("recorder.same_device"));
}

TEST_F(NodeTest, PromotionNeedsTheTermFirst) {
  PromoteRequest request;
  request.holder = {4, "a"};
  EXPECT_EQ(ReasonOf(node_->Promote(Request("r1"), request).status()), "ROLE_TRANSITION");
  ASSERT_OK(terms_->BeginTerm({4, "a"}));
  const auto promoted = node_->Promote(Request("r2"), request);
  EXPECT_FALSE(promoted.ok());
  EXPECT_FALSE(terms_->Get().MayRunAsPrimary());
  EXPECT_THAT(std::string(promoted.status().message()), HasSubstr("HINT: "));
}

TEST_F(NodeTest, WithoutAGateTrafficIsNotHeld) {
  EXPECT_EQ(ReasonOf(node_->HoldTraffic(Request("h"), HoldTrafficRequest()).status()), "GATE_OFF");
  EXPECT_EQ(ReasonOf(node_->ReleaseTraffic(Request("r"), ReleaseTrafficRequest()).status()),
            "GATE_OFF");
}

TEST_F(NodeTest, TimeoutsAreChecked) {
  BeginTermRequest begin;
  begin.holder = {4, "a"};
  begin.timeout = absl::Hours(1);
  EXPECT_THAT(node_->BeginTerm(Request("r1"), begin), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(terms_->Get().term, 0u);
  StopPostgresRequest stop;
  stop.timeout = absl::ZeroDuration();
  EXPECT_THAT(node_->StopPostgres(Request("r2"), stop),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(NodeTest, FenceIsStoredAndForbidsPromotion) {
  ASSERT_OK_AND_ASSIGN(const FenceAnswer answer,
                       node_->Fence(Request("r1"), {{4, "a"}, "sick disk"}));
  EXPECT_FALSE(answer.was_primary);
  EXPECT_TRUE(terms_->Get().fence.active);
  EXPECT_TRUE(board_.Get()->node.fenced);
  PromoteRequest promote;
  promote.holder = {4, "a"};
  const auto refused = node_->Promote(Request("r2"), promote);
  EXPECT_EQ(ReasonOf(refused.status()), "FENCED");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("sick disk"));
}

TEST_F(NodeTest, LateCopyOfAnOldUnfenceDoesNotLiftANewerFence) {
  const TermHolder holder{4, "a"};
  ASSERT_OK(node_->Fence(Request("fence-1"), {holder, "first"}).status());
  ASSERT_OK(node_->Unfence(Request("unfence-1"), holder));
  EXPECT_FALSE(terms_->Get().fence.active);
  ASSERT_OK(node_->Fence(Request("fence-2"), {holder, "second"}).status());
  ASSERT_OK(node_->Unfence(Request("unfence-1"), holder));
  EXPECT_TRUE(terms_->Get().fence.active);
  // Nor does a late copy of the first fence, once all fences are lifted, fence again.
  ASSERT_OK(node_->Unfence(Request("unfence-2"), holder));
  ASSERT_OK(node_->Fence(Request("fence-1"), {holder, "first"}).status());
  EXPECT_FALSE(terms_->Get().fence.active);
}

TEST_F(NodeTest, BusyNodeStoresTheTermAndNamesWhoHoldsIt) {
  ASSERT_OK_AND_ASSIGN(const auto holder,
                       operations_->action_lock().TryAcquire("ApplyConfig", "ApplyConfig"));
  BeginTermRequest request;
  request.holder = {4, "a"};
  const auto busy = node_->BeginTerm(Request("r1"), request);
  EXPECT_THAT(busy,
              StatusIs(absl::StatusCode::kAborted,
                       ::testing::AllOf(HasSubstr("term 4 is stored"), HasSubstr("ApplyConfig"))));
  EXPECT_EQ(ReasonOf(busy.status()), "ACTION_IN_PROGRESS");
  EXPECT_EQ(terms_->Get().term, 4u);
}

TEST_F(NodeTest, CallerThatLeftIsToldWhatGoesOn) {
  RequestContext context = Request("r1");
  context.caller_left = [] { return true; };
  BeginTermRequest request;
  request.holder = {4, "a"};
  const auto left = node_->BeginTerm(context, request);
  if (!left.ok()) {  // the operation may have ended before anyone looked
    EXPECT_EQ(left.status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(std::string(left.status().message()), HasSubstr("operations/"));
  }
  context.caller_left = nullptr;
  EXPECT_TRUE(node_->BeginTerm(context, request)->postgres_down);
}

TEST_F(NodeTest, MissingThingsAreNamed) {
  const auto start = node_->StartPostgres(Request("r1"), {});
  EXPECT_THAT(std::string(start.status().message()), HasSubstr("HINT: "));
  EXPECT_EQ(ReasonOf(node_->CreateBackup(Request("r2"), {}).status()), "REPOSITORY");
  EXPECT_EQ(ReasonOf(node_->ListBackups().status()), "REPOSITORY");
  const auto control = node_->GetControlData(absl::Seconds(60));
  EXPECT_EQ(ReasonOf(control.status()), "DATA_DIRECTORY_MISSING");
  EXPECT_THAT(std::string(control.status().message()), HasSubstr(config_.pg_data_dir));
  EXPECT_THAT(node_->GetBackup("../etc"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(node_->ApplyConfig(Request("r3"), {}), StatusIs(absl::StatusCode::kInvalidArgument));
  StorageProbeRequest probe;
  probe.reads = -1;
  EXPECT_THAT(node_->RunStorageProbe(Request("r4"), probe),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(node_->GetCapabilities().features.at("backup"), "repository.path is not set");
}

TEST_F(NodeTest, RestoreRequestsAreChecked) {
  config_.repository_path = directory_.File("repository");
  node_->Begin();
  RestoreBackupRequest request;
  request.name = "backups/latest";
  EXPECT_THAT(node_->RestoreBackup(Request("r1"), request), StatusIs(absl::StatusCode::kNotFound));
  request.target_directory = "relative";
  EXPECT_THAT(node_->RestoreBackup(Request("r2"), request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("absolute")));
  request.target_directory.clear();
  request.tablespace_mapping = {{"x", "/y"}};
  EXPECT_THAT(node_->RestoreBackup(Request("r3"), request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("OID")));
}

TEST_F(NodeTest, TermsOfTheOldDirectoryAreForgottenWithIt) {
  KnowTerms();
  ASSERT_OK_AND_ASSIGN(const Operation init, node_->InitDataDirectory(Request("r1"), {}));
  ASSERT_OK(operations_->Wait(init.name, absl::Seconds(20)).status());
  EXPECT_FALSE(KnowsTerms()) << "initdb";

  config_.repository_path = directory_.File("repository");
  const TermHolder holder{4, "a"};
  ASSERT_OK(terms_->BeginTerm(holder));
  Operation cut = CutRestore(config_.pg_data_dir);
  cut.spec.term = holder.term;
  cut.spec.parameters["orchestrator_id"] = holder.orchestrator_id;
  KnowTerms();
  RestartWith(cut);
  ASSERT_OK(operations_->Wait(cut.name, absl::Seconds(20)).status());
  EXPECT_FALSE(KnowsTerms()) << "restore";

  cut.spec.subject = directory_.File("elsewhere");
  cut.name += "2";
  KnowTerms();
  RestartWith(cut);
  ASSERT_OK(operations_->Wait(cut.name, absl::Seconds(20)).status());
  EXPECT_TRUE(KnowsTerms()) << "another directory's restore is none of this server's";
}

// A file whose reader hangs as with a disk that does not answer, until the end of the test.
class HangingFile {
 public:
  explicit HangingFile(std::string path) : path_(std::move(path)) {
    EXPECT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  }
  ~HangingFile() {
    const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    ::unlink(path_.c_str());
    ::close(fd);
  }

 private:
  const std::string path_;
};

template <typename Condition>
bool Eventually(const Condition& condition) {
  for (int i = 0; i < 5000; ++i) {
    if (condition()) return true;
    base::RealClock().Sleep(absl::Milliseconds(2));
  }
  return false;
}

TEST_F(NodeTest, AHungRepositoryDoesNotStopTheWatchOfDirectories) {
  config_.repository_path = directory_.File("repository");
  ASSERT_OK(base::MakeDirectories(config_.repository_path));
  directory_.Write("data/PG_VERSION", "15\n");
  directory_.Write("data/global/pg_control", "x");
  ASSERT_OK(base::MakeDirectories(directory_.File("data/pg_tblspc")));
  const HangingFile marker(config_.repository_path + "/metal-repository");
  const auto watched = [&](const std::string& role) {
    return Eventually([&] {
      const auto roles = disks_->roles();
      return std::find(roles.begin(), roles.end(), role) != roles.end();
    });
  };
  node_->Begin();
  ASSERT_TRUE(watched("data"));
  ASSERT_EQ(::symlink("/tmp", directory_.File("data/pg_tblspc/16400").c_str()), 0);
  node_->RequestRefresh();
  EXPECT_TRUE(watched("tablespace:16400"));
}

TEST_F(NodeTest, AHungDataDiskIsWatchedByAnAgentThatStartsBesideIt) {
  config_.repository_path = directory_.File("repository");
  directory_.Write("data/PG_VERSION", "15\n");
  ASSERT_OK(base::MakeDirectories(directory_.File("data/global")));
  const HangingFile control(directory_.File("data/global/pg_control"));
  node_->Begin();
  EXPECT_TRUE(Eventually([&] {
    return disks_->DirectoryOf("data") == config_.pg_data_dir &&
           disks_->DirectoryOf("repository") == config_.repository_path;
  }));
}

TEST_F(NodeTest, ADeadDataDiskIsWatchedByAnAgentThatStartsBesideIt) {
  config_.repository_path = directory_.File("repository");
  // Not a broken disk, but what a look at one says as well: neither a directory nor a missing one.
  ASSERT_EQ(::symlink(config_.pg_data_dir.c_str(), config_.pg_data_dir.c_str()), 0);
  node_->Begin();
  EXPECT_TRUE(Eventually([&] {
    return disks_->DirectoryOf("data") == config_.pg_data_dir &&
           disks_->DirectoryOf("repository") == config_.repository_path;
  }));
}

TEST_F(NodeTest, ADirectoryOfAnotherAgentIsAFault) {
  ASSERT_OK(base::MakeDirectories(config_.pg_data_dir));
  ASSERT_OK(base::MakeDirectories(directory_.File("other")));
  auto other = pg::DataDirectoryLock::Acquire(config_.pg_data_dir, directory_.File("other"));
  ASSERT_OK(other->LockDirectory());
  data_lock_ = *pg::DataDirectoryLock::Acquire(config_.pg_data_dir, config_.state_dir);
  MakeNode();
  node_->Begin();
  const auto faulted = [&] {
    return board_.Get()->faults.contains("data_directory_locked/postgres");
  };
  EXPECT_TRUE(Eventually(faulted));
  EXPECT_TRUE(events_.Await("agent.data_directory_locked"));
  other = absl::CancelledError();
  node_->RequestRefresh();
  EXPECT_TRUE(Eventually([&] { return !faulted(); }));
}

TEST_F(NodeTest, AHungDataDiskDoesNotStopTheListOfBackups) {
  config_.repository_path = directory_.File("repository");
  ASSERT_OK(base::MakeDirectories(directory_.File("data/global")));
  const HangingFile control(directory_.File("data/global/pg_control"));
  node_->Begin();
  // Whose backups they are is not known, which is no reason to show another cluster's.
  EXPECT_TRUE(Eventually([&] { return !board_.Get()->backups.error.empty(); }));
  EXPECT_THAT(board_.Get()->backups.error, HasSubstr("the data disk does not answer"));
  EXPECT_THAT(node_->ListBackups(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(node_->GetBackup("latest"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(node_->GetBackup("20260101T000000Z-F"), StatusIs(absl::StatusCode::kNotFound));
  // What was published is known without the disk.
  board_.Update([](observe::NodeStatus& status) { status.postgres.system_identifier = 7; });
  EXPECT_OK(node_->ListBackups());
}

TEST_F(NodeTest, ADamagedControlFileMakesNoOtherClustersBackupsItsOwn) {
  config_.repository_path = directory_.File("repository");
  directory_.Write("data/PG_VERSION", "15\n");
  directory_.Write("data/global/pg_control", "torn");
  node_->Begin();
  EXPECT_TRUE(Eventually([&] { return !board_.Get()->backups.error.empty(); }));
  EXPECT_THAT(node_->GetBackup("latest").status(), Not(StatusIs(absl::StatusCode::kNotFound)));
  EXPECT_FALSE(node_->ListBackups().ok());
}

TEST_F(NodeTest, ARestoreIsResumedFromTheJournal) {
  config_.repository_path = directory_.File("repository");
  Operation cut = CutRestore(directory_.File("copy"));
  cut.spec.lane = OperationLane::kReader;
  RestartWith(cut);
  ASSERT_OK_AND_ASSIGN(const Operation done, operations_->Wait(cut.name, absl::Seconds(20)));
  EXPECT_EQ(events_.Count("operation.resumed"), 1u);
  EXPECT_EQ(done.state, OperationState::kFailed);  // there is no such backup any more
  EXPECT_EQ(ReasonOf(done.error), "AGENT_RESTARTED");
}

}  // namespace
}  // namespace metal::node
