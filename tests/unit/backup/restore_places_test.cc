// The directories that a restore writes: what it may empty, and what it must never touch.
#include "agent/backup/restore_places.h"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "agent/backup/restore_notes.h"
#include "tests/unit/backup/backup_fixture.h"

namespace {

// Below it every stat fails, as on a disk that died.
std::string& DeadPath() {
  static std::string path;
  return path;
}

}  // namespace

// The test binary's own, before the C library's.
extern "C" int stat(const char* path, struct stat* status) noexcept {
  static const auto real =
      reinterpret_cast<int (*)(const char*, struct stat*)>(dlsym(RTLD_NEXT, "stat"));
  if (!DeadPath().empty() && std::string_view(path).starts_with(DeadPath())) {
    errno = EIO;
    return -1;
  }
  return real(path, status);
}

namespace metal::backup {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

constexpr const char* kVersion = "PG_15_202209061";

// A backup with the tablespace 16400, which is mapped to "space" unless a test says otherwise.
class RestorePlacesTest : public BackupTest {
 protected:
  RestorePlacesTest() {
    for (const char* name : {"pg_wal", "pg_tblspc", "base/1"}) {
      EXPECT_OK(base::MakeDirectories(dir_.File("data/" + std::string(name))));
    }
    Put("PG_VERSION", "15\n");
    Put("global/pg_control", TestControlFile());
    Put("base/1/16384", TestPages(40, 0, 2));
    dir_.Write(fmt::format("outside/{}/5/16500", kVersion), TestPages(2, 0, 1));
    EXPECT_EQ(symlink(dir_.File("outside").c_str(), dir_.File("data/pg_tblspc/16400").c_str()), 0);
    script_.tablespace_map = "16400 " + dir_.File("outside") + "\n";
    EXPECT_OK(Backup());
    request_.tablespace_mapping = {{16400, dir_.File("space")}};
    request_.wal_directory = dir_.File("wal");
  }
  // A restore that dies in the middle of the files.
  void HalfARestore() {
    UseFaultyEngine(2, testing::FaultKind::kError, EIO);
    EXPECT_FALSE(Restore(target_, request_).ok());
    make_engine_ = nullptr;
    ASSERT_TRUE(base::PathExists(target_ + "/metal.incomplete"));
    ASSERT_TRUE(base::PathExists(dir_.File(fmt::format("space/{}/metal.restoring", kVersion))));
    ASSERT_TRUE(base::PathExists(dir_.File("wal/metal.restoring")));
  }
  void ExpectWhole() {
    EXPECT_EQ(*base::ReadFile(dir_.File(fmt::format("space/{}/5/16500", kVersion))),
              TestPages(2, 0, 1));
    EXPECT_FALSE(base::PathExists(dir_.File(fmt::format("space/{}/metal.restoring", kVersion))));
    EXPECT_FALSE(base::PathExists(dir_.File("wal/metal.restoring")));
    EXPECT_FALSE(base::PathExists(target_ + "/metal.incomplete"));
  }
  const std::string target_ = dir_.File("restored");
  RestoreRequest request_;
};

TEST_F(RestorePlacesTest, WhatADeadRestoreMarkedIsEmptiedAndFilledAgain) {
  HalfARestore();
  dir_.Write("wal/half", "x");
  dir_.Write(fmt::format("space/{}/5/half", kVersion), "x");
  ASSERT_OK(Restore(target_, request_));
  ExpectWhole();
  EXPECT_FALSE(base::PathExists(dir_.File("wal/half")));
  EXPECT_FALSE(base::PathExists(dir_.File(fmt::format("space/{}/5/half", kVersion))));
}

TEST_F(RestorePlacesTest, AStaleSentinelDoesNotReachAnotherClustersTablespace) {
  HalfARestore();
  // Somebody empties the places by hand and another cluster moves in.
  ASSERT_OK(base::RemoveTree(dir_.File(fmt::format("space/{}", kVersion))));
  ASSERT_OK(base::RemoveTree(dir_.File("wal")));
  const std::string precious = dir_.Write(fmt::format("space/{}/7/1", kVersion), "precious");
  const std::string segment = dir_.Write("wal/000000010000000000000001", "precious");
  EXPECT_THAT(Restore(target_, request_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(kVersion)));
  // Also when the new order goes elsewhere.
  request_.tablespace_mapping = {{16400, dir_.File("other")}};
  request_.wal_directory = "";
  ASSERT_OK(Restore(target_, request_));
  EXPECT_EQ(*base::ReadFile(precious), "precious");
  EXPECT_EQ(*base::ReadFile(segment), "precious");
}

TEST_F(RestorePlacesTest, AnotherRestoresMarkIsRespected) {
  HalfARestore();
  const auto foreign = Restore(dir_.File("second"), request_);
  EXPECT_THAT(foreign, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("space")));
  ASSERT_OK(Restore(target_, request_));
  ExpectWhole();
}

TEST_F(RestorePlacesTest, ASentinelWithoutAnIdEmptiesTheTargetOnly) {
  const std::string precious = dir_.Write(fmt::format("space/{}/7/1", kVersion), "precious");
  dir_.Write("restored/metal.incomplete",
             fmt::format("restore\nbackup\tx\ntablespace\t{}/{}\n", dir_.File("space"), kVersion));
  dir_.Write("restored/base/1/half", "x");
  EXPECT_FALSE(Restore(target_, request_).ok());
  EXPECT_EQ(*base::ReadFile(precious), "precious");
}

TEST_F(RestorePlacesTest, AnEndInTheMiddleOfMarkingIsTakenUpAgain) {
  RestoreNotes notes;
  notes.id = "0123";
  notes.version_directories = {dir_.File(fmt::format("space/{}", kVersion))};
  notes.wal_directory = dir_.File("wal");
  ASSERT_OK(base::MakeDirectories(target_));
  ASSERT_OK(WriteRestoreNotes(target_, notes));
  dir_.Write("space/metal.restoring.0123/metal.restoring", "0123\n");
  dir_.Write("wal/metal.restoring.0123", "01");
  ASSERT_OK(Restore(target_, request_));
  ExpectWhole();
  EXPECT_FALSE(base::PathExists(dir_.File("space/metal.restoring.0123")));
  EXPECT_FALSE(base::PathExists(dir_.File("wal/metal.restoring.0123")));
}

TEST_F(RestorePlacesTest, PlacesThatMeetAreRefusedBeforeAnythingIsWritten) {
  ASSERT_OK(base::MakeDirectories(dir_.File("real")));
  ASSERT_EQ(symlink(dir_.File("real").c_str(), dir_.File("link").c_str()), 0);
  struct Case {
    std::string target, space, wal, one, other;
  };
  const std::string repository = "repository/new", live = "data/base/new";
  for (const Case& c :
       {Case{"space/in", "space", "", "space/in", "space"},
        Case{"t", "t/space", "", "t/space", "t"}, Case{"t", "t", "", "t", "t"},
        Case{"t", "space", "space", "space", "space"}, Case{"t", "space", "t/wal", "t/wal", "t"},
        Case{"t", "space", "space/../space/wal", "space/wal", "space"},
        Case{"real/t", "link", "", "real/t", "link"},
        Case{"t", "real/a", "link/a", "real/a", "link/a"},
        Case{repository, "space", "", repository, "repository"},
        Case{"t", repository, "", repository, "repository"}, Case{live, "space", "", live, "data"},
        Case{"t", live, "", live, "data"}, Case{"t", "space", live, live, "data"},
        Case{"t", "outside/new", "", "outside/new", "outside"}}) {
    request_.tablespace_mapping = {{16400, dir_.File(c.space)}};
    request_.wal_directory = c.wal.empty() ? "" : dir_.File(c.wal);
    const Tree before = TreeOf(dir_.path());
    const auto refused = Restore(dir_.File(c.target), request_);
    ASSERT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition,
                                  AllOf(HasSubstr(c.one), HasSubstr(dir_.File(c.other)),
                                        HasSubstr("HINT: "))))
        << c.target << " " << c.space << " " << c.wal;
    EXPECT_EQ(base::GetReason(refused.status())->reason, "RESTORE_TARGET");
    EXPECT_TRUE(TreeOf(dir_.path()) == before) << c.target << " " << c.space << " " << c.wal;
  }
}

TEST_F(RestorePlacesTest, ProbeFilesDoNotMakeAPlaceFull) {
  dir_.Write("restored/.metal-probe", "x");
  dir_.Write("space/.metal-probe", "x");
  dir_.Write("wal/.metal-probe.tmp", "x");
  ASSERT_OK(Restore(target_, request_));
  ExpectWhole();
  EXPECT_FALSE(base::PathExists(target_ + "/.metal-probe"));
}

TEST_F(RestorePlacesTest, ADeadDataDiskKeepsNoRestoreFromAnotherDisk) {
  DeadPath() = dir_.File("data");
  EXPECT_OK(Restore(target_, request_));
  // Known by its text.
  EXPECT_THAT(IsSamePlace(dir_.File("data/"), dir_.File("data")),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_FALSE(Restore(dir_.File("data/below")).ok());
  EXPECT_THAT(IsSamePlace(target_, dir_.File("data")), testing::IsOkAndHolds(false));
  DeadPath().clear();
}

TEST_F(RestorePlacesTest, APathThatLeadsUpIsRefused) {
  for (const std::string& path :
       {dir_.File("link/../x"), dir_.path() + "/..", dir_.File("..x/..")}) {
    EXPECT_TRUE(LeadsUp(path)) << path;
    EXPECT_THAT(Restore(path, request_),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("\"..\"")));
  }
  EXPECT_FALSE(LeadsUp("/a/..b/c.."));
  request_.tablespace_mapping[16400] = dir_.File("link/../x");
  EXPECT_THAT(Restore(target_, request_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("\"..\"")));
}

TEST_F(RestorePlacesTest, SlashesMakeNoOtherPlace) {
  for (const char* spelling : {"data/", "data//", "./data", "data/."}) {
    EXPECT_THAT(IsSamePlace(dir_.path() + "/" + spelling, dir_.File("data")),
                testing::IsOkAndHolds(true));
  }
  EXPECT_THAT(IsSamePlace(dir_.File("none/"), dir_.File("none")), testing::IsOkAndHolds(true));
}

}  // namespace
}  // namespace metal::backup
