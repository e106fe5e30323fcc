#include "agent/base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "tests/harness/file_faults.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::base {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using testing::FileFaultKind;
using testing::FileFaults;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::IsOkAndHolds;
using ::testing::SizeIs;
using testing::StatusIs;
using testing::TempDir;

constexpr std::string_view kOld = "the old contents";
constexpr std::string_view kNew = "new contents that are longer than the old ones";

mode_t ModeOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0);
  return info.st_mode & 07777;
}

TEST(FileTest, MissingFileIsNotFoundAndNamed) {
  const TempDir dir;
  EXPECT_THAT(ReadFile(dir.File("nothing")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("open " + dir.path())));
}

TEST(FileTest, ReadFileReadsWhatWasWritten) {
  const TempDir dir;
  std::string contents(200'000, 'x');
  contents[77'777] = '\0';
  EXPECT_THAT(ReadFile(dir.Write("a", contents)), IsOkAndHolds(contents));
  EXPECT_THAT(ReadFile(dir.Write("empty", "")), IsOkAndHolds(std::string()));
}

TEST(FileTest, ReadFileReadsProc) {
  ASSERT_OK_AND_ASSIGN(const std::string status, ReadFile("/proc/self/status"));
  EXPECT_THAT(status, HasSubstr("Pid:"));
}

TEST(FileTest, ReadFileStopsAtItsLimit) {
  const TempDir dir;
  const std::string file = dir.Write("a", "12345");
  EXPECT_THAT(ReadFile(file, 5), IsOk());
  EXPECT_THAT(ReadFile(file, 4),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("longer than 4 bytes")));
  EXPECT_THAT(ReadFile("/dev/zero", 1 << 20), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST(FileTest, DescriptorsAreClosedByExec) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(const UniqueFd fd, OpenFile(dir.Write("a", ""), O_RDONLY));
  EXPECT_NE(fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(WriteFileDurablyTest, SetsTheModeWhateverTheUmask) {
  const TempDir dir;
  const mode_t before = umask(077);
  EXPECT_OK(WriteFileDurably(dir.File("a"), "x", 0644));
  umask(before);
  EXPECT_EQ(ModeOf(dir.File("a")), 0644u);
}

TEST(WriteFileDurablyTest, SyncsTheFileBeforeTheRenameAndTheDirectoryAfterIt) {
  const TempDir dir;
  const FileFaults faults(dir.path(), {});
  ASSERT_OK(WriteFileDurably(dir.File("a"), kNew));
  std::vector<std::string> kinds;
  for (const std::string& call : faults.calls()) kinds.push_back(call.substr(0, call.find(' ')));
  EXPECT_THAT(kinds, ElementsAre("open", "fchmod", "write", "fsync", "close", "rename", "open",
                                 "fsync", "close"));
  EXPECT_THAT(faults.calls()[7], EndsWith("fsync " + dir.path()));
}

// What `path` holds after the Nth file call failed; an error of the call must be reported as one.
void WriteWithFault(const TempDir& dir, testing::FileFault fault, bool& fired) {
  const std::string path = dir.Write("a", kOld);
  absl::Status status;
  bool rename_done = false;
  {
    const FileFaults faults(dir.path(), fault);
    status = WriteFileDurably(path, kNew);
    fired = faults.fired();
    for (const std::string& call : faults.calls()) rename_done |= call.starts_with("rename");
  }
  ASSERT_OK_AND_ASSIGN(const std::string contents, ReadFile(path));
  EXPECT_TRUE(contents == kOld || contents == kNew) << "call " << fault.at_call << ": " << contents;
  EXPECT_TRUE(!status.ok() || contents == kNew);
  EXPECT_TRUE(rename_done || contents == kOld);
}

TEST(WriteFileDurablyTest, NthCallFailingLeavesTheOldOrTheNewFileAndNoOther) {
  for (const int error : {EIO, ENOSPC}) {
    bool fired = true;
    int n = 1;
    for (; fired; ++n) {
      const TempDir dir;
      WriteWithFault(dir, {n, FileFaultKind::kError, error}, fired);
      EXPECT_THAT(ListDirectory(dir.path()), IsOkAndHolds(ElementsAre("a"))) << "call " << n;
      ASSERT_LT(n, 50);
    }
    EXPECT_GT(n, 8);
  }
}

TEST(WriteFileDurablyTest, EveryFailedCallIsReported) {
  for (int n = 1;; ++n) {
    const TempDir dir;
    const FileFaults faults(dir.path(), {n, FileFaultKind::kError, EIO});
    const absl::Status status = WriteFileDurably(dir.File("a"), kNew);
    if (!faults.fired()) {
      EXPECT_OK(status);
      break;
    }
    // Only the close of the directory, which was opened for reading, may fail unseen.
    if (status.ok()) {
      EXPECT_THAT(faults.calls()[static_cast<size_t>(n - 1)], EndsWith("close " + dir.path()));
    } else {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
    }
  }
}

TEST(WriteFileDurablyTest, PowerLossAtEveryCallLeavesTheOldOrTheNewFile) {
  bool fired = true;
  for (int n = 1; fired; ++n) {
    const TempDir dir;
    WriteWithFault(dir, {n, FileFaultKind::kPowerLoss}, fired);
    ASSERT_LT(n, 50);
  }
}

TEST(WriteFileDurablyTest, ShortWritesAreCompleted) {
  bool fired = true;
  for (int n = 1; fired; ++n) {
    const TempDir dir;
    WriteWithFault(dir, {n, FileFaultKind::kShortWrite}, fired);
    EXPECT_THAT(ReadFile(dir.File("a")), IsOkAndHolds(std::string(kNew)));
  }
}

TEST(WriteFileDurablyTest, InterruptedCallsOfOpenAndWriteAreRetried) {
  const TempDir dir;
  for (const int n : {1, 3}) {
    const FileFaults faults(dir.path(), {n, FileFaultKind::kError, EINTR});
    EXPECT_OK(WriteFileDurably(dir.File("a"), kNew));
    EXPECT_TRUE(faults.fired());
  }
}

TEST(MakeDirectoriesTest, MakesEveryLevelWithTheMode) {
  const TempDir dir;
  ASSERT_OK(MakeDirectories(dir.File("a/b//c/"), 0750));
  EXPECT_EQ(ModeOf(dir.File("a")), 0750u);
  EXPECT_EQ(ModeOf(dir.File("a/b/c")), 0750u);
  EXPECT_OK(MakeDirectories(dir.File("a/b/c")));
  EXPECT_EQ(ModeOf(dir.File("a/b/c")), 0750u) << "an existing directory keeps its mode";
}

TEST(MakeDirectoriesTest, FileInTheWayIsAnError) {
  const TempDir dir;
  dir.Write("a", "x");
  EXPECT_THAT(MakeDirectories(dir.File("a/b")),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("/a")));
}

TEST(ListDirectoryTest, NamesAreSorted) {
  const TempDir dir;
  for (const char* name : {"c", "a", ".hidden", "b"}) dir.Write(name, "");
  EXPECT_THAT(ListDirectory(dir.path()), IsOkAndHolds(ElementsAre(".hidden", "a", "b", "c")));
  EXPECT_THAT(ListDirectory(dir.File("none")), StatusIs(absl::StatusCode::kNotFound));
}

TEST(RemoveTreeTest, RemovesFilesAndTrees) {
  const TempDir dir;
  dir.Write("tree/one/two/file", "x");
  dir.Write("tree/file", "x");
  EXPECT_OK(RemoveTree(dir.File("tree/")));
  EXPECT_OK(RemoveTree(dir.Write("single", "x")));
  EXPECT_THAT(ListDirectory(dir.path()), IsOkAndHolds(IsEmpty()));
  EXPECT_OK(RemoveTree(dir.File("tree")));
}

TEST(RemoveTreeTest, StopsBeforeTheNextEntry) {
  const TempDir dir;
  for (int i = 0; i < 5; ++i) dir.Write(fmt::format("tree/{}", i), "x");
  int asked = 0;
  EXPECT_THAT(RemoveTree(dir.File("tree"), [&] { return ++asked > 3; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(ListDirectory(dir.File("tree")), IsOkAndHolds(SizeIs(3)));
  EXPECT_OK(RemoveTree(dir.File("tree"), [] { return false; }));
  EXPECT_FALSE(PathExists(dir.File("tree")));
}

TEST(RemoveTreeTest, SymbolicLinksAreRemovedNotFollowed) {
  const TempDir dir;
  const std::string kept = dir.Write("outside/file", "x");
  ASSERT_OK(MakeDirectories(dir.File("tree")));
  ASSERT_EQ(symlink(dir.File("outside").c_str(), dir.File("tree/link").c_str()), 0);
  ASSERT_EQ(symlink("/nowhere", dir.File("tree/dangling").c_str()), 0);
  EXPECT_OK(RemoveTree(dir.File("tree")));
  EXPECT_FALSE(PathExists(dir.File("tree")));
  EXPECT_TRUE(PathExists(kept));
}

TEST(ExistsTest, OnlyAbsenceIsAbsence) {
  const TempDir dir;
  EXPECT_THAT(Exists(dir.Write("file", "x")), IsOkAndHolds(true));
  EXPECT_THAT(Exists(dir.File("none")), IsOkAndHolds(false));
  EXPECT_THAT(Exists(dir.File("file/below")), IsOkAndHolds(false));
  ASSERT_EQ(symlink("nowhere", dir.File("dangling").c_str()), 0);
  EXPECT_THAT(Exists(dir.File("dangling")), IsOkAndHolds(true));
  ASSERT_EQ(symlink("loop", dir.File("loop").c_str()), 0);
  EXPECT_THAT(Exists(dir.File("loop/below")),
              StatusIs(absl::ErrnoToStatusCode(ELOOP), HasSubstr(dir.File("loop"))));
}

TEST(RenameNoReplaceTest, LeavesWhatIsThere) {
  const TempDir dir;
  const std::string from = dir.Write("from", "new"), to = dir.Write("to", "old");
  EXPECT_THAT(RenameNoReplace(from, to), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(ReadFile(to), IsOkAndHolds(std::string("old")));
  EXPECT_OK(RenameNoReplace(from, dir.File("free")));
  EXPECT_THAT(ListDirectory(dir.path()), IsOkAndHolds(ElementsAre("free", "to")));
}

TEST(PathTest, JoinAndDirectory) {
  EXPECT_EQ(JoinPath("/a", "b"), "/a/b");
  EXPECT_EQ(JoinPath("/a/", "/b"), "/a/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
  EXPECT_EQ(DirectoryOf("/a/b"), "/a");
  EXPECT_EQ(DirectoryOf("/a"), "/");
  EXPECT_EQ(DirectoryOf("a"), ".");
}

}  // namespace
}  // namespace metal::base
