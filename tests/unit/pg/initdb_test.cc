#include "agent/pg/initdb.h"

#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/pg/data_directory.h"
#include "gmock/gmock.h"
#include "tests/harness/file_faults.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Stands for initdb: makes the directory's shape, keeps its arguments and the password; "fail"
// makes it end half way.
constexpr const char* kInitdb = R"sh(#!/bin/sh
here=$(dirname "$0")
echo "$@" > "$here/arguments"
for argument; do
  case "$argument" in
  --pwfile=*)
    cat "${argument#--pwfile=}" > "$here/password"
    stat -c %a "${argument#--pwfile=}" > "$here/password_mode" ;;
  --waldir=*) wal=${argument#--waldir=} ;;
  esac
done
mkdir -p "$2/global" "$2/base"
if [ -n "$wal" ]; then
  mkdir -p "$wal"
  echo x > "$wal/000000010000000000000001"
  ln -s "$wal" "$2/pg_wal"
else
  mkdir "$2/pg_wal"
fi
if [ -e "$here/fail" ]; then
  echo "initdb: error: $(cat "$here/fail")" >&2
  exit 1
fi
echo control > "$2/global/pg_control"
echo 15 > "$2/PG_VERSION"
echo '# sample' > "$2/postgresql.conf"
echo 'local all all trust' > "$2/pg_hba.conf"
echo > "$2/pg_ident.conf"
)sh";
constexpr const char* kPostgres = "#!/bin/sh\necho 'postgres (PostgreSQL) 15.20'\n";

class InitdbTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(chmod(dir_.Write("bin/initdb", kInitdb).c_str(), 0755), 0);
    ASSERT_EQ(chmod(dir_.Write("bin/postgres", kPostgres).c_str(), 0755), 0);
    options_.data_dir = dir_.File("data");
    options_.settings.socket_dir = "/run/metal";
  }
  absl::Status Create() { return CreateDataDirectory(install_, options_); }
  std::string Read(const std::string& name) { return base::ReadFile(dir_.File(name)).value_or(""); }

  testing::TempDir dir_;
  Install install_{dir_.File("bin")};
  InitdbOptions options_;
};

TEST_F(InitdbTest, AFinishedClusterIsWholeAndPrivate) {
  ASSERT_OK(Create());
  ASSERT_OK_AND_ASSIGN(const DataDirectory made, InspectDataDirectory(options_.data_dir));
  EXPECT_EQ(made.kind, DataDirectoryKind::kCluster);
  EXPECT_EQ(made.mode, 0700u);
  EXPECT_THAT(Read("data/postgresql.conf"), HasSubstr("include 'metal.conf'"));
  EXPECT_THAT(Read("data/pg_hba.conf"), HasSubstr("peer map=metal"));
  EXPECT_FALSE(base::PathExists(dir_.File("data/metal.initdb")));
  EXPECT_THAT(Read("bin/arguments"), HasSubstr("--data-checksums"));
  EXPECT_THAT(Read("bin/arguments"), HasSubstr("--auth-local=peer --auth-host=scram-sha-256"));
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kAlreadyExists));
}

TEST_F(InitdbTest, AnEmptyDirectoryIsFilledInPlaceAsAMountPointMustBe) {
  ASSERT_EQ(mkdir(options_.data_dir.c_str(), 0755), 0);
  struct stat before, after;
  ASSERT_EQ(stat(options_.data_dir.c_str(), &before), 0);
  ASSERT_OK(Create());
  ASSERT_EQ(stat(options_.data_dir.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(after.st_mode & 0777, 0700u);
}

TEST_F(InitdbTest, ThePasswordGoesThroughAPrivateFileThatIsRemoved) {
  options_.superuser_password = "s3cret";
  ASSERT_OK(Create());
  EXPECT_EQ(Read("bin/password"), "s3cret\n");
  EXPECT_EQ(Read("bin/password_mode"), "600\n");
  EXPECT_FALSE(base::PathExists(dir_.File("data/metal.initdb.password")));
  EXPECT_EQ(Read("bin/arguments").find("s3cret"), std::string::npos);
}

TEST_F(InitdbTest, OptionsThatTheVersionDoesNotHaveAreRefusedBeforeAnything) {
  options_.locale_provider = "builtin";
  EXPECT_THAT(Create(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("needs PostgreSQL 17")));
  options_.locale_provider = "nonsense";
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kInvalidArgument));
  options_.locale_provider = "";
  options_.wal_segment_size = {3 * base::kMiB};
  EXPECT_THAT(Create(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("WAL segment size")));
  EXPECT_FALSE(base::PathExists(options_.data_dir));
}

TEST_F(InitdbTest, AFailedInitdbLeavesNothingAndItsReason) {
  options_.wal_dir = dir_.File("wal");
  dir_.Write("bin/fail", "invalid locale settings");
  EXPECT_THAT(Create(),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("invalid locale settings")));
  EXPECT_FALSE(base::PathExists(options_.data_dir));
  EXPECT_FALSE(base::PathExists(options_.wal_dir));
  dir_.Write("bin/fail", "could not write: No space left on device");
  ASSERT_EQ(mkdir(options_.data_dir.c_str(), 0700), 0);
  ASSERT_EQ(mkdir(options_.wal_dir.c_str(), 0700), 0);
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(*base::ListDirectory(options_.data_dir), IsEmpty());
  EXPECT_THAT(*base::ListDirectory(options_.wal_dir), IsEmpty());
}

TEST_F(InitdbTest, AForeignWalDirectoryIsNotTouched) {
  options_.wal_dir = dir_.File("wal");
  dir_.Write("wal/precious", "data");
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is not empty")));
  EXPECT_EQ(Read("wal/precious"), "data");
  EXPECT_FALSE(base::PathExists(options_.data_dir));
}

TEST_F(InitdbTest, LeftoversOfAKilledRunAreRemovedAndOthersAreNot) {
  options_.wal_dir = dir_.File("wal");
  dir_.Write("data/metal.incomplete", "initdb\nwal_dir " + options_.wal_dir + "\n");
  dir_.Write("data/metal.initdb/base/1/1259", "half");
  dir_.Write("data/metal.initdb.password", "old");
  dir_.Write("wal/000000010000000000000001", "half");
  ASSERT_OK(Create());
  EXPECT_EQ(InspectDataDirectory(options_.data_dir)->kind, DataDirectoryKind::kCluster);
  dir_.Write("other/metal.incomplete", "restore\n");
  dir_.Write("other/base/1", "half");
  EXPECT_THAT(RemoveInitdbLeftovers(dir_.File("other")),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(Read("other/base/1"), "half");
}

// After a power loss at any file call the directory is not startable, and the next run makes it
// whole.
TEST_F(InitdbTest, PowerLossAtAnyStepIsMadeGoodByTheNextRun) {
  bool finished = false;
  for (int at = 1; !finished; ++at) {
    ASSERT_LT(at, 300);
    ASSERT_OK(base::RemoveTree(options_.data_dir));
    absl::Status status;
    {
      testing::FileFaults faults(options_.data_dir, {at, testing::FileFaultKind::kPowerLoss});
      status = Create();
      finished = !faults.fired();
    }
    ASSERT_OK_AND_ASSIGN(const DataDirectory found, InspectDataDirectory(options_.data_dir));
    if (status.ok()) {
      ASSERT_EQ(found.kind, DataDirectoryKind::kCluster) << at;
      continue;
    }
    ASSERT_NE(found.kind, DataDirectoryKind::kForeign) << at << ": " << status;
    if (found.kind == DataDirectoryKind::kCluster) continue;  // only the report was lost
    EXPECT_OK(Create()) << at;
  }
}

}  // namespace
}  // namespace metal::pg
