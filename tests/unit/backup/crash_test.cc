// Kills a backup and a restore at each of their steps, in a process of its own, and looks at what
// is left.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "agent/base/subprocess.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::testing::HasSubstr;

constexpr const char* kDirectory = "METAL_CRASH_TEST_DIRECTORY";
constexpr const char* kRestore = "METAL_CRASH_TEST_RESTORE";

// The victim: does nothing unless its parent test started it.
class CrashChild : public BackupTest {
 protected:
  void UseDirectory(const std::string& directory) {
    config_.repository_path = directory + "/repository";
    config_.pg_data_dir = directory + "/data";
    archive_ =
        std::make_unique<WalArchive>(WalArchiveOptions{config_.repository_path}, clock_, &events_);
  }
};

TEST_F(CrashChild, RunsUntilItIsKilled) {
  const char* directory = std::getenv(kDirectory);
  if (directory == nullptr) return;
  UseDirectory(directory);
  clock_.Advance(absl::Hours(1));
  if (std::getenv(kRestore) != nullptr) {
    ASSERT_OK(Restore(std::string(directory) + "/restored"));
  } else {
    ASSERT_OK(Backup());
  }
}

class CrashTest : public BackupTest {
 protected:
  // True when the child died of SIGKILL at `point`.
  bool DiesAt(const std::string& point, bool restore) {
    base::SubprocessOptions child;
    char self[4096];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self);
    EXPECT_GT(length, 0);
    child.argv = {std::string(self, static_cast<size_t>(length)),
                  "--gtest_filter=CrashChild.RunsUntilItIsKilled"};
    child.environment = {{kDirectory, dir_.path()}, {"METAL_FAULT_POINTS", point + "=crash"}};
    if (restore) child.environment[kRestore] = "1";
    const auto result = base::RunSubprocess(child);
    EXPECT_OK(result);
    return result->exit_code == 128 + SIGKILL;
  }
};

TEST_F(CrashTest, ABackupKilledAtAnyStepIsWholeOrAbsent) {
  MakeCluster();
  ASSERT_OK_AND_ASSIGN(const BackupInfo first, Backup());
  struct Step {
    const char* point;
    bool published;
  };
  for (const Step& step :
       {Step{"backup.locked", false}, Step{"backup.started", false}, Step{"backup.frame", false},
        Step{"backup.copied", false}, Step{"backup.stopped", false},
        Step{"backup.packs_written", false}, Step{"backup.before_publish", false},
        Step{"backup.manifest_written", false}, Step{"backup.manifest_renamed", true},
        Step{"backup.completed", true}}) {
    ASSERT_TRUE(DiesAt(step.point, false)) << step.point;
    ASSERT_OK_AND_ASSIGN(const auto left, TheCatalog().List(kTestSystem));
    EXPECT_EQ(left.size(), step.published ? 2u : 1u) << step.point;
    for (const BackupInfo& info : left) EXPECT_OK(Verify(info.label));
    clock_.Advance(absl::Hours(2));
    ASSERT_OK_AND_ASSIGN(const BackupInfo next, Backup());
    std::vector<std::string> expected = {"backups/" + next.label, "packs/" + next.label};
    for (const BackupInfo& info : left) {
      expected.push_back("backups/" + info.label);
      expected.push_back("packs/" + info.label);
    }
    EXPECT_THAT(RepositoryEntries(), ::testing::UnorderedElementsAreArray(expected)) << step.point;
    // Back to one backup.
    for (const std::string& entry : RepositoryEntries()) {
      if (entry.find(first.label) != std::string::npos) continue;
      ASSERT_OK(
          base::RemoveTree(fmt::format("{}/{}/{}", config_.repository_path, kTestSystem, entry)));
    }
  }
}

TEST_F(CrashTest, ARestoreKilledAtAnyStepCannotBeTakenForACluster) {
  MakeCluster();
  ASSERT_OK(Backup());
  const std::string target = dir_.File("restored");
  ASSERT_TRUE(DiesAt("restore.locked", true));
  EXPECT_FALSE(base::PathExists(target + "/metal.incomplete")) << "its lock alone is there";
  for (const char* point :
       {"restore.noted", "restore.begun", "restore.frame", "restore.files_written",
        "restore.before_sync", "restore.synced", "restore.control_written"}) {
    ASSERT_TRUE(DiesAt(point, true)) << point;
    EXPECT_TRUE(base::PathExists(target + "/metal.incomplete")) << point;
    EXPECT_EQ(base::PathExists(target + "/global/pg_control"),
              std::string_view(point) == "restore.control_written");
    ASSERT_OK(Restore(target)) << point;
    EXPECT_FALSE(base::PathExists(target + "/metal.incomplete"));
    EXPECT_EQ(*base::ReadFile(target + "/base/1/16384", 64 << 20), TestPages(400, 0, 2)) << point;
    ASSERT_OK(base::RemoveTree(target));
  }
}

}  // namespace
}  // namespace metal::backup
