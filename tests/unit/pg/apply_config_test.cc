#include "agent/pg/apply_config.h"

#include <sys/stat.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/pg/golden_control_files.h"

namespace metal::pg {
namespace {

using ::metal::testing::FakeServerState;
using ::metal::testing::SqlRow;
using ::metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Stands for `postgres`: rejects every value "bad", describes two settings.
constexpr const char* kProgram = R"(#!/bin/sh
case "$1" in
--version) echo 'postgres (PostgreSQL) 15.20' ;;
--describe-config)
  printf 'work_mem\tuser\tg\tINTEGER\t4096\t64\t100\tMemory.\t\n'
  printf 'shared_buffers\tpostmaster\tg\tINTEGER\t1024\t16\t100\tBuffers.\t\n' ;;
*) case "$*" in
   *=bad*) echo '2026 [1] FATAL:  invalid value for parameter "work_mem": "bad"' >&2; exit 1 ;;
   *) echo 4096 ;;
   esac ;;
esac
)";

SqlRow Setting(const char* name, const char* context, const char* value) {
  return {{"name", name}, {"setting", value}, {"context", context}, {"vartype", "integer"}};
}

class ApplyConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    EXPECT_EQ(chmod(dir_.Write("bin/postgres", kProgram).c_str(), 0755), 0);
    const std::vector<std::byte> control = golden::Bytes(golden::kControlFiles[1]);
    dir_.Write("data/global/pg_control",
               {reinterpret_cast<const char*>(control.data()), control.size()});
    dir_.Write("data/PG_VERSION", "15\n");
    dir_.Write("data/postgresql.conf", "# user\n");
    dir_.Write("state/x", "");
    agent_.socket_dir = "/run/metal";
    ASSERT_OK(InstallManagedSettings(data_, agent_, {{"work_mem", "8MB"}}));
    server_.Change([](FakeServerState& state) {
      state.settings = {Setting("work_mem", "user", "8192"),
                        Setting("shared_buffers", "postmaster", "1024"),
                        Setting("block_size", "internal", "8192"),
                        Setting("max_connections", "postmaster", "100")};
    });
  }
  ConfigEditor Editor() {
    return {{data_, dir_.File("state"), agent_}, install_, server_.factory(), clock_};
  }
  absl::StatusOr<ApplyConfigResult> Apply(
      std::map<std::string, std::optional<std::string>> settings, bool validate_only = false) {
    ConfigEditor editor = Editor();
    return editor.Apply({std::move(settings), validate_only});
  }
  std::string File() { return *base::ReadFile(data_ + "/metal.conf"); }

  testing::TempDir dir_;
  std::string data_ = dir_.File("data");
  AgentSettings agent_;
  Install install_{dir_.File("bin")};
  testing::SimulatedClock clock_;
  testing::FakePostgres server_{clock_};
};

TEST_F(ApplyConfigTest, OldAndNewValuesAndTheNeedOfARestartAreTold) {
  server_.Change([](FakeServerState& state) { state.pending_restart = {"shared_buffers"}; });
  ASSERT_OK_AND_ASSIGN(const ApplyConfigResult result,
                       Apply({{"Work_Mem", "16MB"}, {"shared_buffers", "1GB"}}));
  EXPECT_THAT(result.changes,
              ElementsAre(SettingChange{"shared_buffers", std::nullopt, "1GB", "postmaster", true},
                          SettingChange{"work_mem", "8MB", "16MB", "user", false}));
  EXPECT_TRUE(result.reloaded);
  EXPECT_THAT(result.reload.pending_restart, ElementsAre("shared_buffers"));
  EXPECT_THAT(File(), HasSubstr("work_mem = '16MB'"));
}

// An earlier call may have died between the file and the reload.
TEST_F(ApplyConfigTest, WhatIsAlreadySoIsOnlyReloaded) {
  const std::string before = File();
  ASSERT_OK_AND_ASSIGN(const ApplyConfigResult result,
                       Apply({{"work_mem", "8MB"}, {"shared_buffers", std::nullopt}}));
  EXPECT_TRUE(result.changes.empty());
  EXPECT_TRUE(result.reloaded);
  EXPECT_EQ(File(), before);
}

TEST_F(ApplyConfigTest, ARemovedSettingLeavesTheFile) {
  ASSERT_OK_AND_ASSIGN(const ApplyConfigResult result, Apply({{"work_mem", std::nullopt}}));
  ASSERT_EQ(result.changes.size(), 1u);
  EXPECT_EQ(result.changes[0].new_value, std::nullopt);
  EXPECT_EQ(File().find("work_mem"), std::string::npos);
}

TEST_F(ApplyConfigTest, EachRefusalHasPostgressReasonAndChangesNothing) {
  const std::string before = File();
  const std::tuple<const char*, const char*, absl::StatusCode, const char*> rows[] = {
      {"work_mem", "bad", absl::StatusCode::kInvalidArgument,
       "invalid value for parameter \"work_mem\""},
      {"block_size", "1", absl::StatusCode::kInvalidArgument, "cannot be changed"},
      {"no name", "1", absl::StatusCode::kInvalidArgument, "invalid configuration parameter name"},
      {"wal_level", "minimal", absl::StatusCode::kInvalidArgument, "wal_level"},
      {"work_mem", "1\n2", absl::StatusCode::kInvalidArgument, "line break"},
      {"port", "1", absl::StatusCode::kFailedPrecondition, "decided by the agent"},
      {"data_directory", "/x", absl::StatusCode::kFailedPrecondition, "decided by the agent"}};
  for (const auto& [name, value, code, text] : rows) {
    EXPECT_THAT(Apply({{name, value}}), StatusIs(code, HasSubstr(text))) << name;
    EXPECT_EQ(File(), before) << name;
  }
}

TEST_F(ApplyConfigTest, ValidateOnlyWritesNothing) {
  const std::string before = File();
  ASSERT_OK_AND_ASSIGN(const ApplyConfigResult result, Apply({{"work_mem", "16MB"}}, true));
  EXPECT_EQ(result.changes.size(), 1u);
  EXPECT_FALSE(result.reloaded);
  EXPECT_EQ(File(), before);
}

TEST_F(ApplyConfigTest, WhatTheServerRejectsAfterTheWriteIsTakenBack) {
  const std::string before = File();
  server_.Change([](FakeServerState& state) {
    state.file_errors = {
        {{"file", "metal.conf"}, {"line", "4"}, {"name", "work_mem"}, {"error", "too strange"}}};
  });
  EXPECT_THAT(Apply({{"work_mem", "16MB"}}), StatusIs(absl::StatusCode::kInvalidArgument,
                                                      HasSubstr("line 4: work_mem: too strange")));
  EXPECT_EQ(File(), before);
  EXPECT_EQ(server_.state().config_loads, 1);
}

TEST_F(ApplyConfigTest, ASettingOfAlterSystemWouldWinAndIsRefused) {
  dir_.Write("data/postgresql.auto.conf", "# do not edit\nwork_mem = '3MB'\n");
  const auto applied = Apply({{"work_mem", "16MB"}});
  EXPECT_THAT(applied, StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("ALTER SYSTEM RESET work_mem")));
  EXPECT_EQ(base::GetReason(applied.status())->reason, "SETTING_OVERRIDDEN");
}

TEST_F(ApplyConfigTest, BelowThePrimarysValueAStandbyRefuses) {
  EXPECT_OK(Apply({{"max_connections", "50"}}, true));
  server_.Change([](FakeServerState& state) { state.in_recovery = true; });
  EXPECT_THAT(Apply({{"max_connections", "50"}}, true),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("its value was 100")));
}

TEST_F(ApplyConfigTest, WhileTheServerIsDownTheFileIsWrittenForTheNextStart) {
  server_.set_down(true);
  EXPECT_THAT(Apply({{"work_mem", "bad"}}), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_OK_AND_ASSIGN(const ApplyConfigResult result, Apply({{"shared_buffers", "2GB"}}));
  EXPECT_FALSE(result.reloaded);
  EXPECT_EQ(result.changes[0].context, "postmaster");
  EXPECT_THAT(File(), HasSubstr("shared_buffers = '2GB'"));
  ConfigEditor editor = Editor();
  EXPECT_THAT(editor.Reload(), StatusIs(absl::StatusCode::kUnavailable));
  ASSERT_OK_AND_ASSIGN(const auto list, editor.List({}));
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].value, "2GB");
}

TEST_F(ApplyConfigTest, AReloadThatDoesNotHappenIsNoSuccess) {
  server_.Change([](FakeServerState& state) { state.ignores_reload = true; });
  ConfigEditor editor = Editor();
  EXPECT_THAT(editor.Reload(), StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(ApplyConfigTest, AHungServerIsNotADownServer) {
  server_.set_hung(true);
  const std::string before = File();
  EXPECT_THAT(Apply({{"work_mem", "16MB"}}), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(File(), before);
}

TEST_F(ApplyConfigTest, NoScratchDirectoryIsLeft) {
  ASSERT_OK(Apply({{"work_mem", "16MB"}}));
  EXPECT_THAT(Apply({{"work_mem", "bad"}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(*base::ListDirectory(dir_.File("state")), ElementsAre("x"));
}

}  // namespace
}  // namespace metal::pg
