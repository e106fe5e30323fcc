#include "agent/pg/backup_session.h"

#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

using ::metal::testing::FakeServerState;
using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

class BackupSessionTest : public ::testing::Test {
 protected:
  std::unique_ptr<BackupSession> Open() {
    return std::make_unique<BackupSession>(*server_.Connect());
  }
  bool Ran(const std::string& fragment) {
    for (const std::string& sql : server_.statements()) {
      if (sql.find(fragment) != std::string::npos) return true;
    }
    return false;
  }

  testing::SimulatedClock clock_;
  testing::FakePostgres server_{clock_};
};

TEST_F(BackupSessionTest, AWholeBackupOnAPrimary) {
  const auto backup = Open();
  ASSERT_OK_AND_ASSIGN(const BackupStart start, backup->Start({"nightly", true}));
  EXPECT_EQ(start.lsn.ToString(), "0/3000060");
  EXPECT_EQ(start.timeline, 1u);
  EXPECT_EQ(start.wal_segment_size, 16 * base::kMiB);
  EXPECT_FALSE(start.from_standby);
  EXPECT_TRUE(server_.state().backup_running);

  server_.Change([](FakeServerState& state) { state.lsn = base::Lsn{0x5000000}; });
  EXPECT_EQ(backup->CurrentInsertLsn()->ToString(), "0/5000000");
  ASSERT_OK_AND_ASSIGN(const BackupStop stop, backup->Stop(absl::Seconds(10)));
  EXPECT_EQ(stop.lsn.ToString(), "0/5000000");
  EXPECT_THAT(stop.backup_label, HasSubstr("LABEL: nightly\n"));
  EXPECT_FALSE(server_.state().backup_running);
}

TEST_F(BackupSessionTest, TheNamesAreThoseOfTheVersion) {
  for (const auto& [version, name] : {std::pair{130016, "pg_start_backup"},
                                      {140005, "pg_start_backup"},
                                      {150001, "pg_backup_start"},
                                      {180001, "pg_backup_start"}}) {
    server_.Change([v = version](FakeServerState& state) { state.version = v; });
    const auto backup = Open();
    ASSERT_OK(backup->Start({"b", true}));
    ASSERT_OK(backup->Stop(absl::Seconds(1)));
    EXPECT_TRUE(Ran(name)) << version;
  }
}

TEST_F(BackupSessionTest, AbortAndDestructionEndTheBackupOnTheServer) {
  auto backup = Open();
  ASSERT_OK(backup->Start({"b", true}));
  backup->Abort();
  EXPECT_FALSE(server_.state().backup_running);
  EXPECT_THAT(backup->CurrentInsertLsn(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(backup->Stop(absl::Seconds(1)), StatusIs(absl::StatusCode::kFailedPrecondition));
  backup = Open();
  ASSERT_OK(backup->Start({"b", true}));
  backup.reset();
  EXPECT_FALSE(server_.state().backup_running);
}

TEST_F(BackupSessionTest, MinimalWalIsRefusedBeforeAnythingStarts) {
  server_.Change([](FakeServerState& state) { state.wal_level = "minimal"; });
  EXPECT_THAT(Open()->Start({"b", true}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("wal_level is minimal")));
  EXPECT_FALSE(server_.state().backup_running);
}

TEST_F(BackupSessionTest, OnAStandbyTheEndIsWhatWasReplayed) {
  server_.Change([](FakeServerState& state) {
    state.in_recovery = true;
    state.replayed = base::Lsn{0x4000100};
  });
  const auto backup = Open();
  ASSERT_OK_AND_ASSIGN(const BackupStart start, backup->Start({"b", true}));
  EXPECT_TRUE(start.from_standby);
  server_.Change([](FakeServerState& state) { state.replayed = base::Lsn{0x4000900}; });
  ASSERT_OK_AND_ASSIGN(const BackupStop stop, backup->Stop(absl::Seconds(1)));
  EXPECT_EQ(stop.lsn.ToString(), "0/4000900");
}

TEST_F(BackupSessionTest, APromotionDuringAStandbyBackupSpoilsIt) {
  server_.Change([](FakeServerState& state) {
    state.in_recovery = true;
    state.replayed = base::Lsn{0x4000100};
  });
  const auto backup = Open();
  ASSERT_OK(backup->Start({"b", true}));
  server_.Change([](FakeServerState& state) { state.in_recovery = false; });
  const auto stopped = backup->Stop(absl::Seconds(1));
  EXPECT_THAT(stopped, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("promoted")));
  EXPECT_EQ(base::GetReason(stopped.status())->reason, "STANDBY_PROMOTED");
}

// Every statement of a backup fails once; a later try on a new session succeeds.
TEST_F(BackupSessionTest, AnyLostStatementFailsTheBackupAndLeavesNothing) {
  bool finished = false;
  for (int at = 1; !finished; ++at) {
    ASSERT_LT(at, 50);
    const size_t before = server_.statements().size();
    server_.FailStatement(at, absl::UnavailableError("connection to postgres is lost"), true);
    {
      const auto backup = Open();
      absl::Status status = backup->Start({"b", true}).status();
      if (status.ok()) status = backup->Stop(absl::Seconds(1)).status();
      finished = server_.statements().size() - before < static_cast<size_t>(at);
      EXPECT_EQ(status.ok(), finished) << at << ": " << status;
    }
    EXPECT_FALSE(server_.state().backup_running) << at;
  }
}

TEST(BackupLabelTest, FieldsAreRead) {
  ASSERT_OK_AND_ASSIGN(
      const BackupLabel label,
      ParseBackupLabel("START WAL LOCATION: 2/3000028 (file 000000010000000200000003)\n"
                       "CHECKPOINT LOCATION: 2/3000060\n"
                       "BACKUP METHOD: streamed\n"
                       "BACKUP FROM: standby\n"
                       "START TIME: 2026-11-22 03:00:00 UTC\n"
                       "LABEL: it: has (colons)\n"
                       "START TIMELINE: 7\n"));
  EXPECT_EQ(label.start_lsn.ToString(), "2/3000028");
  EXPECT_EQ(label.start_wal_file, "000000010000000200000003");
  EXPECT_EQ(label.checkpoint.ToString(), "2/3000060");
  EXPECT_EQ(label.timeline, 7u);
  EXPECT_TRUE(label.from_standby);
  EXPECT_EQ(label.label, "it: has (colons)");
}

TEST(BackupLabelTest, AMissingLineIsNamed) {
  EXPECT_THAT(ParseBackupLabel(""),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("START WAL LOCATION")));
  EXPECT_THAT(ParseBackupLabel("START WAL LOCATION: 0/1 (file x)\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("CHECKPOINT LOCATION")));
  EXPECT_THAT(
      ParseBackupLabel(
          "START WAL LOCATION: 0/1 (file x)\nCHECKPOINT LOCATION: 0/2\nSTART TIMELINE: x\n"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("START TIMELINE")));
}

}  // namespace
}  // namespace metal::pg
