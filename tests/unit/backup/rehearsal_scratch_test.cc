#include "agent/backup/rehearsal_scratch.h"

#include <signal.h>
#include <unistd.h>

#include <map>

#include "agent/backup/rehearsal_settings.h"
#include "agent/base/file.h"
#include "agent/base/proc.h"
#include "agent/base/subprocess.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

class RehearsalScratchTest : public ::testing::Test {
 protected:
  ~RehearsalScratchTest() override {
    if (process_ > 0) ::kill(process_, SIGKILL);  // a child of init: nobody else's pid by now
  }
  RehearsalScratch Make() {
    auto scratch = MakeRehearsalScratch(dir_.path(), dir_.File("scratch"), "label");
    EXPECT_OK(scratch);
    EXPECT_OK(base::MakeDirectories(scratch->data()));
    return *std::move(scratch);
  }
  // A process that works in `directory` until it is ended.
  pid_t Launch(const std::string& directory) {
    base::DaemonOptions options;
    options.argv = {"/bin/sleep", "60"};
    options.directory = directory;
    options.log_path = dir_.File("log");
    const auto pid = base::StartDaemon(options);
    EXPECT_OK(pid);
    process_ = *pid;
    return *pid;
  }
  bool Lives(pid_t pid) const {
    const auto stat = base::ReadProcStat(pid);
    return stat.ok() && stat->state != 'Z';
  }
  // As the next agent does.
  void CleanUp() {
    for (const RehearsalScratch& left : FindLeftRehearsals(dir_.path())) {
      EXPECT_OK(RemoveRehearsalScratch(left, "/no/programs", base::RealClock()));
    }
  }
  void ExpectGone(const RehearsalScratch& scratch) {
    for (const std::string& path : {scratch.root, scratch.socket, scratch.note}) {
      EXPECT_FALSE(base::PathExists(path)) << path;
    }
    EXPECT_THAT(FindLeftRehearsals(dir_.path()), IsEmpty());
  }
  testing::TempDir dir_;
  pid_t process_ = 0;
};

TEST_F(RehearsalScratchTest, TheNextAgentEndsTheServerAndRemovesTheRest) {
  RehearsalScratch scratch = Make();
  const pid_t server = Launch(scratch.data());
  ASSERT_OK(NoteRehearsalServer(scratch, server));
  const auto left = FindLeftRehearsals(dir_.path());
  ASSERT_THAT(left, SizeIs(1));
  EXPECT_EQ(left[0].server_pid, server);
  CleanUp();
  EXPECT_FALSE(Lives(server));
  ExpectGone(scratch);
}

TEST_F(RehearsalScratchTest, AnAgentThatEndsLeavesTheRestToTheNext) {
  RehearsalScratch scratch = Make();
  const pid_t server = Launch(scratch.data());
  ASSERT_OK(NoteRehearsalServer(scratch, server));
  EXPECT_THAT(
      RemoveRehearsalScratch(scratch, "/no/programs", base::RealClock(), [] { return true; }),
      testing::StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(FindLeftRehearsals(dir_.path()), SizeIs(1));
  CleanUp();
  EXPECT_FALSE(Lives(server));
  ExpectGone(scratch);
}

TEST_F(RehearsalScratchTest, AnotherProcessWithTheNotedPidLives) {
  RehearsalScratch scratch = Make();
  const pid_t other = Launch(scratch.data());
  ASSERT_OK(NoteRehearsalServer(scratch, other));
  // It started at another time than the one that was noted.
  std::string note = *base::ReadFile(scratch.note);
  note.insert(note.size() - 1, "1");
  ASSERT_OK(base::WriteFileDurably(scratch.note, note));
  CleanUp();
  EXPECT_TRUE(Lives(other));
  ExpectGone(scratch);
}

TEST_F(RehearsalScratchTest, AProcessThatWorksElsewhereLives) {
  RehearsalScratch scratch = Make();
  const pid_t other = Launch("/");
  ASSERT_OK(NoteRehearsalServer(scratch, other));
  CleanUp();
  EXPECT_TRUE(Lives(other));
  ExpectGone(scratch);
}

TEST_F(RehearsalScratchTest, ANoteThatNamesSomethingElseRemovesNothing) {
  const std::string precious = dir_.Write("precious/file", "x");
  dir_.Write("rehearsal_scratch.1",
             fmt::format("root\t{}\nsocket\t/tmp/metal-rehearsal-1\n", dir_.File("precious")));
  dir_.Write("rehearsal_scratch.2",
             fmt::format("root\t{}/rehearsal-x\nsocket\t/tmp\n", dir_.path()));
  EXPECT_THAT(FindLeftRehearsals(dir_.path()), IsEmpty());
  EXPECT_TRUE(base::PathExists(precious));
}

TEST(RehearsalSettingsTest, WalIsAsSmallAsTheSegmentsAllow) {
  for (const auto& [segment, size] : {std::pair{1, "2MB"}, {16, "32MB"}, {1024, "2048MB"}}) {
    const RehearsalPlaces places{"/d", "/s", "/h", static_cast<uint64_t>(segment) << 20};
    const Settings settings = RehearsalSettings(15, places);
    const std::map<std::string, std::string> found(settings.begin(), settings.end());
    EXPECT_EQ(found.at("min_wal_size"), size);
    EXPECT_EQ(found.at("max_wal_size"), size);
  }
}

TEST(RehearsalSettingsTest, EachVersionGetsOnlyWhatItHas) {
  const auto names = [](int major) {
    std::set<std::string> found;
    for (const auto& [name, value] : RehearsalSettings(major, {"/d", "/s", "/h"})) {
      EXPECT_TRUE(found.insert(name).second) << name;
    }
    return found;
  };
  EXPECT_TRUE(names(13).contains("stats_temp_directory"));
  EXPECT_FALSE(names(13).contains("archive_library"));
  EXPECT_TRUE(names(15).contains("archive_library"));
  EXPECT_FALSE(names(15).contains("stats_temp_directory"));
  EXPECT_TRUE(names(17).contains("event_triggers"));
  EXPECT_FALSE(names(17).contains("promote_trigger_file"));
  EXPECT_TRUE(names(18).contains("data_directory"));
  for (const auto& [name, value] : RehearsalSessionSettings(16)) {
    EXPECT_TRUE(names(16).contains(name)) << name;
    EXPECT_EQ(value.find_first_of(" \\"), std::string::npos) << "it becomes a connection option";
  }
}

}  // namespace
}  // namespace metal::backup
