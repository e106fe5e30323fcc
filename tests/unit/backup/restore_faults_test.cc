// A restore whose every call on files outside of the ring fails once: sentinel, marks, links,
// settings, backup_manifest, syncs, pg_control.
#include <unistd.h>

#include "tests/harness/file_faults.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using testing::FileFaultKind;

class RestoreFaultsTest : public BackupTest {
 protected:
  RestoreFaultsTest() {
    for (const char* name : {"pg_wal", "pg_tblspc", "base/1"}) {
      EXPECT_OK(base::MakeDirectories(dir_.File("data/" + std::string(name))));
    }
    Put("PG_VERSION", "15\n");
    Put("global/pg_control", TestControlFile());
    Put("postgresql.conf", "# settings\n");
    Put("base/1/16384", TestPages(40, 0, 2));
    dir_.Write("outside/PG_15_202209061/5/16500", TestPages(2, 0, 1));
    EXPECT_EQ(symlink(dir_.File("outside").c_str(), dir_.File("data/pg_tblspc/16400").c_str()), 0);
    script_.tablespace_map = "16400 " + dir_.File("outside") + "\n";
    EXPECT_OK(Backup());
    request_.tablespace_mapping = {{16400, dir_.File("to/space")}};
    request_.wal_directory = dir_.File("to/wal");
    EXPECT_OK(base::MakeDirectories(dir_.File("to")));
  }
  void RemoveAll() {
    for (const char* name : {"copy", "space", "wal"}) {
      ASSERT_OK(base::RemoveTree(dir_.File("to/" + std::string(name))));
    }
  }
  // Whatever failed: what PostgreSQL would start is whole.
  void ExpectHalfOrWhole(bool succeeded, FileFaultKind kind, const std::string& what) {
    const bool sentinel = base::PathExists(target_ + "/metal.incomplete");
    const bool startable = base::PathExists(target_ + "/global/pg_control") && !sentinel;
    EXPECT_TRUE(startable || !succeeded) << what;
    if (!startable) return;
    Tree copy = TreeOf(target_);
    // Its lines come in the order in which the codec threads were done.
    EXPECT_EQ(copy["backup_manifest"].size(), whole_["backup_manifest"].size()) << what;
    copy["backup_manifest"] = whole_["backup_manifest"];
    copy.erase("metal.incomplete.lock");      // says nothing without the sentinel
    if (kind == FileFaultKind::kPowerLoss) {  // in the middle of the last step
      copy.erase("pg_tblspc/16400/PG_15_202209061/metal.restoring");
      copy.erase("pg_wal/metal.restoring");
    }
    for (const auto& [path, contents] : copy) {
      EXPECT_TRUE(whole_.contains(path) && contents == whole_[path]) << path << ": " << what;
    }
    EXPECT_EQ(copy.size(), whole_.size()) << what;
    RemoveAll();
  }
  // Every `step`-th call fails in one restore, which begins on what the one before left. Answers
  // how many restores failed.
  int FailEach(FileFaultKind kind, int error, int step) {
    int failures = 0;
    for (int nth = 1; nth < 10000; nth += step) {
      std::string what;
      bool fired = false, ok = false;
      {
        testing::FileFaults faults(dir_.File("to/"), {nth, kind, error});
        const auto report = Restore(target_, request_);
        ok = report.ok();
        fired = faults.fired();
        what =
            fmt::format("call {}: {}: {}", nth, faults.calls().back(), report.status().ToString());
      }
      failures += ok ? 0 : 1;
      ExpectHalfOrWhole(ok, kind, what);
      if (!fired || HasFailure()) break;
    }
    RemoveAll();
    return failures;
  }
  const std::string target_ = dir_.File("to/copy");
  RestoreRequest request_;
  Tree whole_;
};

TEST_F(RestoreFaultsTest, EveryFailingCallLeavesHalfOrAWholeCopy) {
  ASSERT_OK(Restore(target_, request_));
  whole_ = TreeOf(target_);
  RemoveAll();
  EXPECT_GT(FailEach(FileFaultKind::kError, EIO, 1), 50);
  EXPECT_EQ(FailEach(FileFaultKind::kShortWrite, 0, 7), 0);
  EXPECT_GT(FailEach(FileFaultKind::kPowerLoss, EIO, 3), 20);
}

}  // namespace
}  // namespace metal::backup
