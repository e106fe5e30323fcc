#include "agent/pg/settings.h"

#include <sys/stat.h>

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "tests/harness/file_faults.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

AgentSettings Agent() {
  AgentSettings agent;
  agent.port = 5433;
  agent.socket_dir = "/run/metal";
  agent.cluster_name = "shard one";
  agent.archiving = true;
  agent.wal_helper = "/usr/bin/metal-wal";
  agent.wal_socket = "/run/metal/wal.sock";
  return agent;
}

TEST(QuoteSettingTest, QuotesAndBackslashesAreDoubled) {
  EXPECT_EQ(*QuoteSetting("it's C:\\x"), "'it''s C:\\\\x'");
  EXPECT_EQ(*QuoteSetting(""), "''");
  EXPECT_THAT(QuoteSetting("a\nb"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(QuoteSetting(std::string("a\0b", 3)), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ParseSettingsTest, ReadsWhatPostgresReads) {
  ASSERT_OK_AND_ASSIGN(const SettingMap settings,
                       ParseSettings("# comment\n"
                                     "work_mem = 8MB   # tail\n"
                                     "Shared_Buffers '1GB'\n"
                                     "  port=5433\n"
                                     "log_line_prefix = '%m it''s \\'q\\' \\t\\101'\n"
                                     "foo.bar = on\n"
                                     "include 'other.conf'\n"
                                     "include_dir = 'conf.d'\n"
                                     "\n"
                                     "work_mem = '16MB'\n"
                                     "empty = ''"));
  EXPECT_THAT(settings,
              UnorderedElementsAre(Pair("work_mem", "16MB"), Pair("shared_buffers", "1GB"),
                                   Pair("port", "5433"), Pair("log_line_prefix", "%m it's 'q' \tA"),
                                   Pair("foo.bar", "on"), Pair("empty", "")));
}

TEST(ParseSettingsTest, ABrokenLineIsNamed) {
  for (const char* text : {"ok = 1\nwork_mem =\n", "ok = 1\n= 5\n", "ok = 1\na = 'open\n",
                           "ok = 1\na = 1 2\n", "ok=1\na = b'c'\n"}) {
    EXPECT_THAT(ParseSettings(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 2")))
        << text;
  }
}

TEST(ManagedSettingsTest, AnyValueSurvivesTheFile) {
  ManagedSettings settings;
  settings.user = {{"a", "it's"}, {"b", "back\\slash \\n"}, {"c", ""}, {"d", "#no comment = 'x'"}};
  settings.agent = AgentOwnedSettings(Agent());
  ASSERT_OK_AND_ASSIGN(const std::string text, RenderManagedSettings(settings));
  ASSERT_OK_AND_ASSIGN(const ManagedSettings parsed, ParseManagedSettings(text));
  EXPECT_EQ(parsed.user, settings.user);
  EXPECT_EQ(parsed.agent, settings.agent);
}

TEST(ManagedSettingsTest, TheAgentsLinesComeLast) {
  ManagedSettings settings{{{"zzz", "1"}}, {{"aaa", "2"}}};
  ASSERT_OK_AND_ASSIGN(const std::string text, RenderManagedSettings(settings));
  EXPECT_LT(text.find("zzz"), text.find("aaa"));
}

TEST(ManagedSettingsTest, AFileWithoutTheAgentsMarkIsRefused) {
  EXPECT_THAT(ParseManagedSettings("work_mem = 1\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("HINT")));
}

TEST(AgentSettingsTest, CommandsAreShellWordsWithPercentDoubled) {
  EXPECT_EQ(ArchiveCommand("/opt/it's/100%/metal-wal", "/run/w"),
            "'/opt/it'\\''s/100%%/metal-wal' push --socket='/run/w' %p %f");
  EXPECT_EQ(RestoreCommand("/m", "/s"), "'/m' fetch --socket='/s' %f %p");
}

TEST(AgentSettingsTest, OwnershipFollowsTheConfiguration) {
  AgentSettings agent = Agent();
  for (const char* name : {"port", "listen_addresses", "archive_command", "archive_library",
                           "restore_command", "cluster_name", "hot_standby"}) {
    EXPECT_TRUE(IsAgentOwned(agent, name)) << name;
  }
  EXPECT_FALSE(IsAgentOwned(agent, "work_mem"));
  agent.archiving = false;
  EXPECT_FALSE(IsAgentOwned(agent, "archive_command"));
  EXPECT_FALSE(IsAgentOwned(agent, "archive_library"));
}

TEST(ManagedIncludeTest, IsAddedOnceAndKeepsEveryByteOfTheUser) {
  const std::string user = "# mine\nwork_mem = 4MB";
  const std::string once = WithManagedInclude(user);
  EXPECT_TRUE(once.starts_with(user + "\n"));
  EXPECT_THAT(once, HasSubstr("include 'metal.conf'"));
  EXPECT_EQ(WithManagedInclude(once), once);
}

TEST(ManagedIncludeTest, MovesToTheEndWhenLinesWereAppended) {
  const std::string once = WithManagedInclude("a = 1\n");
  const std::string appended = once + "port = 1\n";
  const std::string fixed = WithManagedInclude(appended);
  EXPECT_LT(fixed.find("port = 1"), fixed.find("include 'metal.conf'"));
  EXPECT_EQ(fixed.find("include 'metal.conf'"), fixed.rfind("include 'metal.conf'"));
  EXPECT_EQ(WithManagedInclude(fixed), fixed);
}

TEST(InstallManagedSettingsTest, KeepsUserSettingsAndModesAndIsIdempotent) {
  testing::TempDir dir;
  const std::string conf = dir.Write("postgresql.conf", "# user\n");
  ASSERT_EQ(chmod(conf.c_str(), 0640), 0);
  ASSERT_OK(InstallManagedSettings(dir.path(), Agent()));
  ASSERT_OK_AND_ASSIGN(ManagedSettings settings, LoadManagedSettings(dir.path()));
  EXPECT_EQ(settings.user, InitialUserSettings());
  EXPECT_EQ(settings.agent.at("port"), "5433");
  struct stat info;
  ASSERT_EQ(stat(conf.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);

  settings.user = {{"work_mem", "9MB"}};
  ASSERT_OK(StoreManagedSettings(dir.path(), settings));
  AgentSettings moved = Agent();
  moved.port = 6000;
  ASSERT_OK(InstallManagedSettings(dir.path(), moved));
  ASSERT_OK_AND_ASSIGN(settings, LoadManagedSettings(dir.path()));
  EXPECT_THAT(settings.user, UnorderedElementsAre(Pair("work_mem", "9MB")));
  EXPECT_EQ(settings.agent.at("port"), "6000");

  const std::string before = *base::ReadFile(conf);
  ASSERT_EQ(stat(conf.c_str(), &info), 0);
  const ino_t inode = info.st_ino;
  ASSERT_OK(InstallManagedSettings(dir.path(), moved));
  ASSERT_EQ(stat(conf.c_str(), &info), 0);
  EXPECT_EQ(info.st_ino, inode);  // not even rewritten
  EXPECT_EQ(*base::ReadFile(conf), before);
}

TEST(InstallManagedSettingsTest, ADeadLinkIsSeenInTenSecondsUnlessTheUserSaidOtherwise) {
  testing::TempDir dir;
  dir.Write("postgresql.conf", "wal_sender_timeout = '3min'  # mine\n#wal_receiver_timeout = 1\n");
  ASSERT_OK(InstallManagedSettings(dir.path(), Agent()));
  ASSERT_OK_AND_ASSIGN(const ManagedSettings settings, LoadManagedSettings(dir.path()));
  EXPECT_EQ(settings.user.at("wal_receiver_timeout"), "10s");
  EXPECT_FALSE(settings.user.contains("wal_sender_timeout"));
}

TEST(InstallManagedSettingsTest, WhatTheUserHasSetIsKeptWhenADirectoryIsTakenOver) {
  testing::TempDir dir;
  dir.Write("postgresql.conf",
            "wal_level = logical\nmax_wal_senders = 50\nLogging_Collector = on\n"
            "log_line_prefix = '%t '\n#log_checkpoints = off\n");
  ASSERT_OK(InstallManagedSettings(dir.path(), Agent()));
  ASSERT_OK_AND_ASSIGN(const ManagedSettings settings, LoadManagedSettings(dir.path()));
  for (const char* name :
       {"wal_level", "max_wal_senders", "logging_collector", "log_line_prefix"}) {
    EXPECT_FALSE(settings.user.contains(name)) << name;
  }
  EXPECT_EQ(settings.user.at("log_checkpoints"), "on");
  EXPECT_EQ(settings.user.at("wal_log_hints"), "on");
}

TEST(InstallManagedSettingsTest, AWalLevelThatAllowsNoStandbyIsNotKept) {
  testing::TempDir dir;
  dir.Write("postgresql.conf", "wal_level = 'Minimal'\n");
  ASSERT_OK(InstallManagedSettings(dir.path(), Agent()));
  EXPECT_EQ(LoadManagedSettings(dir.path())->user.at("wal_level"), "replica");
}

TEST(InstallManagedSettingsTest, ARestoreCommandStaysUntilItIsDecidedAnew) {
  testing::TempDir dir;
  dir.Write("postgresql.conf", "");
  AgentSettings agent = Agent();
  agent.restore_command = RestoreCommand("/m", "/s");
  ASSERT_OK(InstallManagedSettings(dir.path(), agent));
  ASSERT_OK(InstallManagedSettings(dir.path(), Agent()));
  EXPECT_TRUE(LoadManagedSettings(dir.path())->agent.contains("restore_command"));
  agent.restore_command = "";
  ASSERT_OK(InstallManagedSettings(dir.path(), agent));
  EXPECT_FALSE(LoadManagedSettings(dir.path())->agent.contains("restore_command"));
}

TEST(InstallManagedSettingsTest, AfterAnyFailedFileCallTheFilesAreOldOrNew) {
  const std::string user = "# user\nwork_mem = 4MB\n";
  bool finished = false;
  for (int at = 1; !finished; ++at) {
    ASSERT_LT(at, 100);
    testing::TempDir dir;
    const std::string conf = dir.Write("postgresql.conf", user);
    {
      testing::FileFaults faults(dir.path(), {at, testing::FileFaultKind::kPowerLoss});
      const absl::Status status = InstallManagedSettings(dir.path(), Agent());
      finished = !faults.fired();
      if (finished) {
        EXPECT_OK(status);
      }
    }
    const std::string after = *base::ReadFile(conf);
    EXPECT_TRUE(after == user || after == WithManagedInclude(user)) << "call " << at;
    // metal.conf is whole before anything includes it.
    if (after != user) {
      EXPECT_OK(LoadManagedSettings(dir.path())) << "call " << at;
    }
    ASSERT_OK(InstallManagedSettings(dir.path(), Agent())) << "call " << at;
    EXPECT_EQ(LoadManagedSettings(dir.path())->agent, AgentOwnedSettings(Agent()));
  }
}

}  // namespace
}  // namespace metal::pg
