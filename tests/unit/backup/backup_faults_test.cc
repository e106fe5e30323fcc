// A backup whose every call on files outside of the ring fails once, or loses its power there:
// directories, file list, packs' ends, manifest, syncs, renames.
#include <fcntl.h>

#include <set>

#include "tests/harness/file_faults.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using testing::FileFaultKind;

class BackupFaultsTest : public BackupTest {
 protected:
  BackupFaultsTest() {
    for (const char* name : {"pg_wal", "pg_tblspc", "base/1"}) {
      EXPECT_OK(base::MakeDirectories(dir_.File("data/" + std::string(name))));
    }
    Put("PG_VERSION", "15\n");
    Put("global/pg_control", TestControlFile());
    Put("base/1/16384", TestPages(40, 0, 2));
    const auto info = Backup();  // archives the WAL, too
    EXPECT_OK(info);
    first_ = info->label;
    script_.on_stop = nullptr;
  }
  // What is listed is whole, and `label` among it when it was said to be there. Back to one backup.
  void ExpectWholeOrAbsent(const std::string& label, const std::string& what) {
    const auto listed = TheCatalog().List(kTestSystem);
    ASSERT_OK(listed) << what;
    std::set<std::string> labels;
    for (const BackupInfo& info : *listed) {
      EXPECT_OK(Verify(info.label)) << what;
      labels.insert(info.label);
      if (info.label == first_) continue;
      for (const char* kind : {"backups", "packs"}) {
        ASSERT_OK(base::RemoveTree(
            fmt::format("{}/{}/{}/{}", config_.repository_path, kTestSystem, kind, info.label)));
      }
    }
    EXPECT_TRUE(labels.contains(first_)) << what;
    EXPECT_TRUE(label.empty() || labels.contains(label)) << what;
  }
  // Every call fails in one backup. Answers how many backups failed.
  int FailEach(FileFaultKind kind, int error) {
    int failures = 0;
    for (int nth = 1; nth < 10000; ++nth) {
      std::string what, label;
      bool fired = false;
      {
        testing::FileFaults faults(config_.repository_path + "/", {nth, kind, error});
        clock_.Advance(absl::Hours(1));
        BackupRequest request;
        request.wal_patience = absl::ZeroDuration();  // it is archived, or cannot be read
        const auto info = Backup(request);
        if (info.ok()) label = info->label;
        // The call after the last one: with a published backup behind it.
        base::OpenFile(config_.repository_path + "/metal-repository", O_RDONLY)
            .status()
            .IgnoreError();
        fired = faults.fired();
        what = fmt::format("call {}: {}: {}", nth, faults.calls().back(), info.status().ToString());
      }
      failures += label.empty() ? 1 : 0;
      ExpectWholeOrAbsent(label, what);
      if (!fired || HasFailure()) break;
    }
    // The next run removes what the last ones left.
    const auto info = Backup();
    EXPECT_OK(info);
    EXPECT_THAT(RepositoryEntries(),
                ::testing::UnorderedElementsAre("backups/" + first_, "packs/" + first_,
                                                "backups/" + info->label, "packs/" + info->label));
    ExpectWholeOrAbsent(info->label, "after all");
    return failures;
  }
  std::string first_;
};

TEST_F(BackupFaultsTest, EveryFailingCallLeavesAWholeBackupOrNone) {
  EXPECT_GT(FailEach(FileFaultKind::kError, EIO), 15);
}

TEST_F(BackupFaultsTest, AFullDiskAtAnyCallLeavesAWholeBackupOrNone) {
  EXPECT_GT(FailEach(FileFaultKind::kError, ENOSPC), 15);
}

TEST_F(BackupFaultsTest, ShortWritesDoNoHarm) {
  EXPECT_EQ(FailEach(FileFaultKind::kShortWrite, 0), 0);
}

TEST_F(BackupFaultsTest, APowerLossAtAnyCallLeavesAWholeBackupOrNone) {
  EXPECT_GT(FailEach(FileFaultKind::kPowerLoss, EIO), 15);
}

}  // namespace
}  // namespace metal::backup
