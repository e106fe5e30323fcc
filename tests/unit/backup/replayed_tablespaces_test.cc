#include "agent/backup/replayed_tablespaces.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using testing::StatusIs;

class ReplayedTablespacesTest : public BackupTest {
 protected:
  ReplayedTablespacesTest() {
    MakeCluster();
    fill_wal_ = [this](TestWal& wal) {
      wal.AddTablespace(16500, place_);
      wal.AddTablespace(16501, "");  // in place
    };
  }
  // The manifest as an agent wrote it that did not look for tablespaces in WAL.
  void ForgetTablespaces(const BackupInfo& info) {
    BackupHeader header = info.header;
    header.created_tablespaces.reset();
    const std::string directory =
        fmt::format("{}/{}/backups/{}", config_.repository_path, kTestSystem, info.label);
    ASSERT_OK(base::WriteFileDurably(directory + "/manifest", FormatManifest(header)));
  }
  absl::Status Rehearse(const std::string& label) {
    VerifyRequest request;
    request.backup = label;
    request.rehearse = true;
    return VerifyBackup(request, Context()).status();
  }
  const std::string place_ = dir_.File("place");
};

TEST_F(ReplayedTablespacesTest, ABackupKnowsWhatItsWalCreates) {
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  EXPECT_THAT(info.header.created_tablespaces, Optional(ElementsAre(std::pair(16500u, place_))));
  EXPECT_THAT(events_.types(), ::testing::Contains("backup.creates_tablespace"));
  ASSERT_OK_AND_ASSIGN(const BackupInfo stored, TheCatalog().Get(kTestSystem, info.label));
  EXPECT_EQ(stored.header.created_tablespaces, info.header.created_tablespaces);
}

TEST_F(ReplayedTablespacesTest, RestoreIsRefusedWhereReplayWouldOverwrite) {
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  dir_.Write("place/PG_14_202107181/1", "of another version");
  EXPECT_OK(Restore(dir_.File("first")).status());
  dir_.Write("place/PG_15_202209061/5/16600", "live");
  for (const bool known : {true, false}) {
    if (!known) ForgetTablespaces(info);
    EXPECT_THAT(Restore(dir_.File("second")),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(place_)));
    EXPECT_FALSE(*base::Exists(dir_.File("second"))) << "nothing is written";
  }
  RestoreRequest request;
  request.tablespace_mapping = {{16500, dir_.File("elsewhere")}};
  EXPECT_THAT(Restore(dir_.File("second"), request), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(ReplayedTablespacesTest, ARehearsalThatWouldLeaveItsDirectoryIsRefused) {
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  for (const bool known : {true, false}) {
    if (!known) ForgetTablespaces(info);
    EXPECT_THAT(Rehearse(info.label),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(place_)));
    EXPECT_OK(Verify(info.label).status());
  }
}

TEST_F(ReplayedTablespacesTest, WalThatCannotBeFollowedIsNotKnown) {
  fill_wal_ = [](TestWal& wal) { wal.Add(5, 0, "no tablespace"); };
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  EXPECT_EQ(info.header.created_tablespaces, std::nullopt);
  EXPECT_THAT(events_.types(), ::testing::Contains("backup.wal_not_followed"));
  EXPECT_OK(Restore(dir_.File("restored")).status()) << "a lost cluster comes back nevertheless";
  EXPECT_THAT(Rehearse(info.label), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(ReplayedTablespacesTest, ATablespaceOfTheLiveClusterStopsAReplayBeyondTheBackup) {
  fill_wal_ = nullptr;
  ASSERT_OK(Backup().status());
  dir_.Write("later/PG_15_202209061/5/16600", "live");
  ASSERT_EQ(symlink(dir_.File("later").c_str(), dir_.File("data/pg_tblspc/16700").c_str()), 0);
  RestoreRequest request;
  for (const auto target : {RecoveryTarget::kLatest, RecoveryTarget::kStandby}) {
    request.recovery_target = target;
    EXPECT_THAT(Restore(dir_.File("copy"), request),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("16700")));
  }
  request.recovery_target = RecoveryTarget::kImmediate;
  EXPECT_OK(Restore(dir_.File("copy"), request).status());
  // Another cluster's.
  Put("global/pg_control", TestControlFile(true, kTestSystem + 1));
  request.recovery_target = RecoveryTarget::kLatest;
  EXPECT_OK(Restore(dir_.File("other"), request).status());
}

TEST_F(ReplayedTablespacesTest, WalIsNotReadWhenTheDirectoryOfLinksIsOld) {
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  BackupHeader header = info.header;
  header.created_tablespaces.reset();
  ASSERT_OK(NoteCreatedTablespaces(header, absl::Now() + absl::Hours(1), Context()));
  EXPECT_THAT(header.created_tablespaces, Optional(::testing::IsEmpty()));
  ASSERT_OK(NoteCreatedTablespaces(header, absl::Now(), Context()));
  EXPECT_THAT(header.created_tablespaces, Optional(ElementsAre(std::pair(16500u, place_))));
}

}  // namespace
}  // namespace metal::backup
