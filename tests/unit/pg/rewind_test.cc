#include "agent/pg/rewind.h"

#include <sys/stat.h>

#include <vector>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::ReasonOf;
using ::metal::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Stands for pg_rewind: keeps its arguments, says what the file "says" holds, ends with "code".
constexpr const char* kProgram = R"sh(#!/bin/sh
here=$(dirname "$0")
for argument; do echo "$argument"; done > "$here/arguments"
cat "$here/says" >&2
exit $(cat "$here/code")
)sh";

constexpr const char* kGoodRun =
    "pg_rewind: connected to server\n"
    "pg_rewind: servers diverged at WAL location 0/3000000 on timeline 1\n"
    "pg_rewind: rewinding from last common checkpoint at 0/2000060 on timeline 1\n"
    "pg_rewind: reading source file list\n"
    "pg_rewind: reading WAL in target\n"
    "pg_rewind: need to copy 39 MB (total source directory size is 59 MB)\n"
    "    0/40133 kB (0%) copied\n"
    "40133/40133 kB (100%) copied\n"
    "pg_rewind: creating backup label and updating control file\n"
    "pg_rewind: syncing target data directory\n"
    "pg_rewind: Done!\n";

class RewindTest : public ::testing::Test {
 protected:
  absl::Status Run(const std::string& says, int code, bool dry_run = false) {
    options_.program = dir_.Write("bin/pg_rewind", kProgram);
    EXPECT_EQ(chmod(options_.program.c_str(), 0755), 0);
    dir_.Write("bin/says", says);
    dir_.Write("bin/code", std::to_string(code));
    options_.data_dir = "/data";
    options_.conninfo = "host='a b' port='1'";
    options_.dry_run = dry_run;
    return RunPgRewind(options_, report_);
  }
  std::string Arguments() { return base::ReadFile(dir_.File("bin/arguments")).value_or(""); }

  testing::TempDir dir_;
  PgRewindOptions options_;
  RewindReport report_;
};

TEST_F(RewindTest, AGoodRunSaysWhatItFoundAndHowFarItIs) {
  std::vector<std::string> steps;
  std::vector<uint64_t> done;
  options_.on_step = [&](const std::string& step) { steps.push_back(step); };
  options_.on_progress = [&](base::ByteCount bytes, base::ByteCount total) {
    done.push_back(bytes.value);
    EXPECT_EQ(total.value, 40133 * base::kKiB);
  };
  ASSERT_OK(Run(kGoodRun, 0));
  EXPECT_TRUE(report_.required && report_.began && report_.finished);
  EXPECT_EQ(report_.diverged_at.ToString(), "0/3000000");
  EXPECT_EQ(report_.diverged_timeline, 1u);
  EXPECT_EQ(report_.checkpoint.ToString(), "0/2000060");
  EXPECT_THAT(done, ElementsAre(0u, 40133 * base::kKiB));
  EXPECT_THAT(steps, ElementsAre("reading source file list", "reading WAL in target", "copying",
                                 "creating backup label and updating control file",
                                 "syncing target data directory"));
  EXPECT_THAT(Arguments(),
              AllOf(HasSubstr("--target-pgdata=/data\n"),
                    HasSubstr("--source-server=host='a b' port='1'\n"),
                    HasSubstr("--no-ensure-shutdown"), ::testing::Not(HasSubstr("--dry-run"))));
}

TEST_F(RewindTest, ADryRunChangesNothing) {
  ASSERT_OK(Run(kGoodRun, 0, true));
  EXPECT_THAT(Arguments(), HasSubstr("--dry-run"));
  EXPECT_FALSE(report_.began);
}

TEST_F(RewindTest, NothingToDoIsNoError) {
  ASSERT_OK(
      Run("pg_rewind: connected to server\n"
          "pg_rewind: servers diverged at WAL location 0/3000000 on timeline 1\n"
          "pg_rewind: no rewind required\n",
          0));
  EXPECT_FALSE(report_.required);
  EXPECT_FALSE(report_.began);
}

TEST_F(RewindTest, ARefusalComesWithItsOwnWords) {
  const absl::Status refused =
      Run("pg_rewind: connected to server\n"
          "pg_rewind: fatal: target server needs to use either data checksums or "
          "\"wal_log_hints = on\"\n",
          1);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("pg_rewind: target server needs to use either")));
  EXPECT_EQ(ReasonOf(refused), "REWIND_REFUSED");
  EXPECT_FALSE(report_.began);
  EXPECT_THAT(Run("pg_rewind: error: could not fetch file list: ERROR:  permission denied\n"
                  "pg_rewind: detail: of function pg_ls_dir\n",
                  1),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("permission denied; detail: of function")));
  EXPECT_THAT(Run("", 3), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("code 3")));
}

TEST_F(RewindTest, MissingWalIsNamed) {
  const absl::Status missing =
      Run("pg_rewind: servers diverged at WAL location 0/3000000 on timeline 1\n"
          "pg_rewind: error: could not open file "
          "\"/data/pg_wal/000000010000000000000003\": No such file or directory\n"
          "pg_rewind: error: could not find previous WAL record at 0/3000028\n",
          1);
  EXPECT_EQ(ReasonOf(missing), "WAL_MISSING");
  EXPECT_EQ(base::GetReason(missing)->metadata.at("first_missing"), "000000010000000000000003");
  EXPECT_THAT(std::string(missing.message()), HasSubstr("HINT: "));
  // Another file that is missing is no WAL to fetch.
  EXPECT_EQ(
      ReasonOf(Run("pg_rewind: error: could not open file \"/data/global/pg_control\": No such "
                   "file or directory\n",
                   1)),
      "REWIND_REFUSED");
}

TEST_F(RewindTest, TheCauseDecidesTheCode) {
  EXPECT_THAT(
      Run("pg_rewind: error: connection to server at \"x\" failed: Connection refused\n", 1),
      StatusIs(absl::StatusCode::kUnavailable));
  const std::string until_copy =
      std::string(kGoodRun).substr(0, std::string(kGoodRun).find("  0/"));
  const absl::Status full = Run(until_copy +
                                    "pg_rewind: error: could not write file \"/data/base/1\": No "
                                    "space left on device\n",
                                1);
  EXPECT_THAT(full, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("HINT: free space")));
  EXPECT_EQ(ReasonOf(full), "NO_SPACE");
  EXPECT_TRUE(report_.began);
  options_.program = dir_.File("bin/none");
  EXPECT_FALSE(RunPgRewind(options_, report_).ok());
}

TEST(RewindTargetTest, EveryMissingPrerequisiteIsNamed) {
  ControlFile control;
  control.full_page_writes = true;
  EXPECT_EQ(ReasonOf(CheckRewindTarget(control)), "REWIND_REFUSED");
  control.wal_log_hints = true;
  EXPECT_OK(CheckRewindTarget(control));
  control.wal_log_hints = false;
  control.checksum_version = 1;
  EXPECT_OK(CheckRewindTarget(control));
  control.checksum_version = 0;
  control.full_page_writes = false;
  EXPECT_THAT(CheckRewindTarget(control),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("wal_log_hints"), HasSubstr("full_page_writes was off"))));
}

class RewindSourceTest : public ::testing::Test {
 protected:
  RewindSourceTest() {
    control_.system_identifier = 7;
    source_.system_identifier = 7;
    source_.version_num = 150018;
    source_.timeline = source_.control_timeline = 3;
    source_.full_page_writes = true;
  }
  std::string Refusal() {
    const absl::Status status = CheckRewindSource(source_, control_, 15);
    if (status.ok()) return "";
    EXPECT_EQ(ReasonOf(status), "REWIND_SOURCE");
    EXPECT_THAT(std::string(status.message()), HasSubstr("HINT: "));
    return base::GetReason(status)->metadata.at("differs");
  }
  ControlFile control_;
  RewindSource source_;
};

TEST_F(RewindSourceTest, AWrongSourceIsRefusedForWhatItIs) {
  EXPECT_EQ(Refusal(), "");
  source_.full_page_writes = false;
  EXPECT_EQ(Refusal(), "full_page_writes");
  source_.in_recovery = true;
  EXPECT_EQ(Refusal(), "role");
  source_.version_num = 170001;
  EXPECT_EQ(Refusal(), "version");
  source_.system_identifier = 8;
  EXPECT_EQ(Refusal(), "system_identifier");
}

TEST_F(RewindSourceTest, APromotionIsOverWithItsCheckpoint) {
  EXPECT_TRUE(source_.checkpointed());
  source_.control_timeline = 2;
  EXPECT_FALSE(source_.checkpointed());
  source_.timeline = source_.control_timeline = 0;
  EXPECT_FALSE(source_.checkpointed());
}

TEST_F(RewindSourceTest, TheQueryIsRead) {
  testing::SimulatedClock clock;
  testing::FakePostgres server(clock);
  server.On("pg_control_checkpoint", [](const std::vector<SqlValue>& parameters) {
    EXPECT_EQ(parameters.at(0), "metal_b");
    return testing::MakeResult({{{"in_recovery", "f"},
                                 {"system_identifier", "7123456789012345678"},
                                 {"control_timeline", "26"},
                                 {"current", "0/5000060"},
                                 {"timeline", "0000001A"},
                                 {"full_page_writes", "t"},
                                 {"slot_exists", "t"}}});
  });
  ASSERT_OK_AND_ASSIGN(const auto session, server.Connect());
  ASSERT_OK_AND_ASSIGN(const RewindSource found,
                       QueryRewindSource(*session, "metal_b", absl::Seconds(1)));
  EXPECT_EQ(found.system_identifier, 7123456789012345678u);
  EXPECT_EQ(found.timeline, 26u);
  EXPECT_TRUE(found.checkpointed());
  EXPECT_TRUE(found.slot_exists && found.full_page_writes);
  EXPECT_EQ(found.current.ToString(), "0/5000060");
}

}  // namespace
}  // namespace metal::pg
