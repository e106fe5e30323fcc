#include "tools/metalctl/completion.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/metalctl/cli_commands.h"
#include "tools/metalctl/command_tree.h"

namespace metal::ctl {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using Words = std::vector<std::string>;

class CompletionTest : public ::testing::Test {
 protected:
  CompletionTest() : app_("", "metalctl") {
    app_.fallthrough();
    app_.add_option("--endpoint", invocation_.client.endpoint, "");
    app_.add_option("-o,--output", invocation_.output, "")->check(CLI::IsMember({"table", "json"}));
    AddObserveCommands(app_, invocation_);
    AddOperationCommands(app_, invocation_);
    AddPostgresCommands(app_, invocation_);
    AddBackupCommands(app_, invocation_);
  }
  Words Complete(const Words& words) {
    return CompleteWords(app_, words, [](const std::string& kind) {
      return kind == "backup" ? Words{"latest", "20261122T021500Z"} : Words{kind};
    });
  }

  Invocation invocation_;
  CLI::App app_;
};

TEST_F(CompletionTest, CommandsOfEachLevel) {
  EXPECT_THAT(Complete({"back"}), ElementsAre("backup"));
  EXPECT_THAT(Complete({"pg", "config", ""}), ElementsAre("get", "set"));
}

TEST_F(CompletionTest, GoesOnAfterAnArgument) {
  EXPECT_THAT(Complete({"backup", "restore", "latest", ""}), Contains("--target"));
  EXPECT_THAT(Complete({"backup", "restore", "latest", "--reco"}), ElementsAre("--recover"));
  EXPECT_THAT(Complete({"pg", "config", "set", "a=1", "b=2", "--r"}), ElementsAre("--reset"));
}

TEST_F(CompletionTest, OptionsOfTheCommandAndOfEveryCommand) {
  const Words offered = Complete({"pg", "stop", "-"});
  EXPECT_THAT(offered, Contains("--escalate"));
  EXPECT_THAT(offered, Contains("--endpoint"));
  EXPECT_THAT(offered, Not(Contains("--locale")));
}

TEST_F(CompletionTest, ValuesOfOptions) {
  EXPECT_THAT(Complete({"pg", "stop", "--mode", "f"}), ElementsAre("fast"));
  EXPECT_THAT(Complete({"pg", "stop", "--mode=f"}), ElementsAre("fast"));
  EXPECT_THAT(Complete({"pg", "stop", "--mode", "=", "f"}), ElementsAre("fast"))
      << "as bash splits it";
  EXPECT_THAT(Complete({"-o", "j"}), ElementsAre("json"));
  EXPECT_THAT(Complete({"backup", "restore", "--target", "/m"}), ElementsAre(":files"));
}

TEST_F(CompletionTest, ValuesOfOptionsAreNotTakenForCommands) {
  EXPECT_THAT(Complete({"--endpoint", "unix", ":", "/run/a.sock", "backup", "sh"}),
              ElementsAre("show"));
  EXPECT_THAT(Complete({"-o", "json", "op", "sh"}), ElementsAre("show"));
}

TEST_F(CompletionTest, NamesThatTheAgentKnows) {
  EXPECT_THAT(Complete({"backup", "show", "2"}), ElementsAre("20261122T021500Z"));
  EXPECT_THAT(Complete({"op", "cancel", ""}), ElementsAre("operation"));
}

TEST_F(CompletionTest, NothingAfterAMistake) { EXPECT_THAT(Complete({"backpu", ""}), IsEmpty()); }

TEST_F(CompletionTest, EveryCommandHasAnExampleThatParses) {
  std::vector<CLI::App*> todo = app_.get_subcommands([](const CLI::App*) { return true; });
  while (!todo.empty()) {
    CLI::App* command = todo.back();
    todo.pop_back();
    const auto inner = command->get_subcommands([](const CLI::App*) { return true; });
    todo.insert(todo.end(), inner.begin(), inner.end());
    if (!inner.empty()) continue;
    EXPECT_THAT(command->help(), ::testing::HasSubstr("Example:\n  " + FullCommand(*command)))
        << FullCommand(*command);
  }
}

TEST_F(CompletionTest, TheFirstWordThatLeadsNowhereIsFound) {
  EXPECT_EQ(FindPlace(app_, {"backup", "lsit"}).unknown, "lsit");
  EXPECT_EQ(FindPlace(app_, {"backup", "create", "--codek", "lz4"}).unknown, "--codek");
  EXPECT_EQ(FindPlace(app_, {"backup", "create", "--codec", "lz4"}).unknown, "");
}

TEST(NearestTest, TyposFindTheirWordAndOtherWordsDoNot) {
  const Words commands = {"status", "watch", "events", "backup", "op", "pg"};
  EXPECT_EQ(Nearest("statsu", commands), "status");
  EXPECT_EQ(Nearest("bakup", commands), "backup");
  EXPECT_EQ(Nearest("stat", commands), "status");
  EXPECT_EQ(Nearest("backups", commands), "backup");
  EXPECT_EQ(Nearest("restore", commands), std::nullopt);
  EXPECT_EQ(Nearest("x", commands), std::nullopt);
}

}  // namespace
}  // namespace metal::ctl
