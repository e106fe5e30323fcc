#include "agent/pg/data_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

const PostgresVersion kFifteen{150018, "15.18"};

class DataDirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_.Write("data/PG_VERSION", "15\n");
    dir_.Write("data/global/pg_control", "x");
    dir_.Write("data/pg_wal/keep", "");
    ASSERT_EQ(mkdir((path_ + "/pg_tblspc").c_str(), 0700), 0);
    ASSERT_EQ(chmod(path_.c_str(), 0700), 0);
  }
  DataDirectory Look() { return *InspectDataDirectory(path_); }
  std::string ReasonOf(const absl::Status& status) {
    const auto reason = base::GetReason(status);
    EXPECT_THAT(std::string(status.message()), HasSubstr("HINT"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
    return reason ? reason->reason : std::string(status.message());
  }
  std::string StartReason() { return ReasonOf(CheckStartable(Look(), kFifteen, geteuid())); }

  testing::TempDir dir_;
  std::string path_ = dir_.File("data");
};

TEST_F(DataDirectoryTest, AGoodClusterIsStartable) {
  ASSERT_OK(base::WriteFileDurably(path_ + "/standby.signal", ""));
  const DataDirectory found = Look();
  EXPECT_EQ(found.kind, DataDirectoryKind::kCluster);
  EXPECT_EQ(found.major, 15);
  EXPECT_TRUE(found.standby_signal);
  EXPECT_FALSE(found.recovery_signal);
  EXPECT_EQ(found.wal_path, path_ + "/pg_wal");
  EXPECT_GT(found.data_free.value, 0u);
  EXPECT_OK(CheckStartable(found, kFifteen, geteuid()));
}

TEST_F(DataDirectoryTest, EachObstacleToAStartIsNamed) {
  EXPECT_EQ(ReasonOf(CheckStartable(Look(), kFifteen, geteuid() + 1)), "DATA_DIRECTORY_OWNER");
  EXPECT_EQ(ReasonOf(CheckStartable(Look(), {170002, "17.2"}, geteuid())), "VERSION_MISMATCH");
  ASSERT_EQ(chmod(path_.c_str(), 0755), 0);
  EXPECT_EQ(StartReason(), "DATA_DIRECTORY_MODE");
  ASSERT_EQ(chmod(path_.c_str(), 0750), 0);
  EXPECT_OK(CheckStartable(Look(), kFifteen, geteuid()));
  ASSERT_EQ(symlink("/nonexistent/space", (path_ + "/pg_tblspc/16401").c_str()), 0);
  EXPECT_EQ(StartReason(), "TABLESPACE_MISSING");
  ASSERT_EQ(unlink((path_ + "/pg_tblspc/16401").c_str()), 0);
  ASSERT_OK(base::RemoveTree(path_ + "/pg_wal"));
  EXPECT_EQ(StartReason(), "WAL_DIRECTORY_MISSING");
  ASSERT_OK(WriteIncompleteSentinel(path_, "restore", {"from somewhere"}));
  EXPECT_EQ(StartReason(), "DATA_DIRECTORY_INCOMPLETE");
  EXPECT_EQ(Look().incomplete_task, "restore");
  ASSERT_OK(RemoveIncompleteSentinel(path_));
  ASSERT_OK(base::RemoveTree(path_ + "/PG_VERSION"));
  EXPECT_EQ(StartReason(), "DATA_DIRECTORY_FOREIGN");
  ASSERT_OK(base::RemoveTree(path_));
  EXPECT_EQ(StartReason(), "DATA_DIRECTORY_MISSING");
}

TEST_F(DataDirectoryTest, AFullDiskIsResourceExhausted) {
  DataDirectory full = Look();
  full.data_free = {100};
  const absl::Status status = CheckStartable(full, kFifteen, geteuid());
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("100 B free")));
  EXPECT_EQ(ReasonOf(status), "NO_SPACE");
}

TEST_F(DataDirectoryTest, TablespacesAreLinksOrInPlaceDirectories) {
  dir_.Write("space/x", "");
  ASSERT_EQ(symlink(dir_.File("space").c_str(), (path_ + "/pg_tblspc/16401").c_str()), 0);
  ASSERT_EQ(mkdir((path_ + "/pg_tblspc/16402").c_str(), 0700), 0);
  ASSERT_EQ(mkdir((path_ + "/pg_tblspc/junk").c_str(), 0700), 0);
  const DataDirectory found = Look();
  ASSERT_EQ(found.tablespaces.size(), 2u);
  EXPECT_EQ(found.tablespaces[0].oid, 16401u);
  EXPECT_EQ(found.tablespaces[0].location, dir_.File("space"));
  EXPECT_FALSE(found.tablespaces[0].in_place);
  EXPECT_TRUE(found.tablespaces[1].in_place);
  EXPECT_OK(CheckStartable(found, kFifteen, geteuid()));
}

TEST_F(DataDirectoryTest, OnlyAnEmptyPlaceOrOurLeftoversMayBeFilled) {
  EXPECT_THAT(CheckCreatable(Look(), geteuid()), StatusIs(absl::StatusCode::kAlreadyExists));
  ASSERT_OK(WriteIncompleteSentinel(path_, "restore"));
  EXPECT_THAT(CheckCreatable(Look(), geteuid()), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(WriteIncompleteSentinel(path_, "initdb"));
  EXPECT_OK(CheckCreatable(Look(), geteuid()));
  ASSERT_OK(base::RemoveTree(path_));
  EXPECT_OK(CheckCreatable(Look(), geteuid()));
  dir_.Write("data/readme", "foreign");
  EXPECT_EQ(ReasonOf(CheckCreatable(Look(), geteuid())), "DATA_DIRECTORY_NOT_EMPTY");
}

TEST_F(DataDirectoryTest, ALockAndACutOffSentinelAreNoContents) {
  for (const char* name : {"metal.incomplete.lock", "metal.incomplete.tmp.1"}) {
    dir_.Write("other/" + std::string(name), "");
  }
  const auto directory = InspectDataDirectory(dir_.File("other"));
  ASSERT_OK(directory);
  EXPECT_EQ(directory->kind, DataDirectoryKind::kEmpty);
}

TEST_F(DataDirectoryTest, AHalfRewoundDirectoryIsNeitherStartedNorFilled) {
  ASSERT_OK(WriteRewindSentinel(path_));
  ASSERT_OK(WriteRewindSentinel(path_));
  const DataDirectory found = Look();
  EXPECT_TRUE(found.half_rewound());
  EXPECT_EQ(found.kind, DataDirectoryKind::kIncomplete);
  EXPECT_THAT(CheckStartable(found, kFifteen, geteuid()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("metalctl rewind again")));
  EXPECT_EQ(StartReason(), "DATA_DIRECTORY_INCOMPLETE");
  EXPECT_EQ(ReasonOf(CheckCreatable(found, geteuid())), "DATA_DIRECTORY_INCOMPLETE");
  // A restore over it is a half restore.
  ASSERT_OK(WriteIncompleteSentinel(path_, "restore"));
  EXPECT_FALSE(Look().half_rewound());
  ASSERT_OK(RemoveIncompleteSentinel(path_));
  ASSERT_OK(RemoveRewindSentinel(path_));
  ASSERT_OK(RemoveRewindSentinel(path_));
  EXPECT_OK(CheckStartable(Look(), kFifteen, geteuid()));
}

TEST_F(DataDirectoryTest, AFileIsNotADirectory) {
  EXPECT_THAT(InspectDataDirectory(path_ + "/PG_VERSION"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not a directory")));
}

TEST_F(DataDirectoryTest, TheLockExcludesASecondAgentByStateAndByData) {
  dir_.Write("state/x", "");
  dir_.Write("state2/x", "");
  ASSERT_OK_AND_ASSIGN(const DataDirectoryLock first,
                       DataDirectoryLock::Acquire(path_, dir_.File("state")));
  EXPECT_THAT(DataDirectoryLock::Acquire(dir_.File("other"), dir_.File("state")),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("postgres.lock")));
  ASSERT_OK_AND_ASSIGN(const DataDirectoryLock second,
                       DataDirectoryLock::Acquire(path_, dir_.File("state2")));
  ASSERT_OK(first.LockDirectory());
  ASSERT_OK(first.LockDirectory());
  const absl::Status refused = second.LockDirectory();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kAborted, HasSubstr(path_)));
  EXPECT_EQ(base::GetReason(refused)->reason, "DATA_DIRECTORY_LOCKED");
}

TEST_F(DataDirectoryTest, TheStateIsLockedBesideADataDirectoryThatCannotBeReached) {
  dir_.Write("state/x", "");
  dir_.Write("loop", "");
  ASSERT_EQ(unlink(dir_.File("loop").c_str()), 0);
  ASSERT_EQ(symlink(dir_.File("loop").c_str(), dir_.File("loop").c_str()), 0);  // ELOOP
  ASSERT_OK_AND_ASSIGN(const DataDirectoryLock lock,
                       DataDirectoryLock::Acquire(dir_.File("loop/data"), dir_.File("state")));
  EXPECT_THAT(lock.LockDirectory(), Not(StatusIs(absl::StatusCode::kOk)));
}

TEST_F(DataDirectoryTest, ADirectoryMadeLaterIsLockedThen) {
  dir_.Write("state/x", "");
  dir_.Write("state2/x", "");
  const std::string later = dir_.File("later");
  ASSERT_OK_AND_ASSIGN(const DataDirectoryLock first,
                       DataDirectoryLock::Acquire(later, dir_.File("state")));
  ASSERT_OK(first.LockDirectory());
  ASSERT_EQ(mkdir(later.c_str(), 0700), 0);
  ASSERT_OK(first.LockDirectory());
  ASSERT_OK_AND_ASSIGN(const DataDirectoryLock second,
                       DataDirectoryLock::Acquire(later, dir_.File("state2")));
  EXPECT_THAT(second.LockDirectory(), StatusIs(absl::StatusCode::kAborted));
}

}  // namespace
}  // namespace metal::pg
