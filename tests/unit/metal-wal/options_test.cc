#include "tools/metal-wal/options.h"

#include <string_view>
#include <vector>

#include "gmock/gmock.h"

namespace metal::wal {
namespace {

using ::testing::HasSubstr;

std::optional<Options> Parse(std::vector<const char*> words, std::string* error = nullptr) {
  words.insert(words.begin(), "metal-wal");
  std::string ignored;
  return ParseOptions(static_cast<int>(words.size()), words.data(),
                      error == nullptr ? ignored : *error);
}

TEST(OptionsTest, PushTakesPathThenName) {
  const auto options =
      Parse({"push", "pg_wal/000000010000000000000001", "000000010000000000000001"});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->command, Options::Command::kPush);
  EXPECT_EQ(options->path, "pg_wal/000000010000000000000001");
  EXPECT_EQ(options->file_name, "000000010000000000000001");
  EXPECT_EQ(options->socket_path, "/run/metal/wal.sock");
  EXPECT_EQ(options->timeout_seconds, 60);
  EXPECT_EQ(options->system_identifier, 0u);
  EXPECT_FALSE(options->strict);
}

TEST(OptionsTest, FetchTakesNameThenPath) {
  const auto options =
      Parse({"fetch", "--strict", "--socket=/s", "--timeout", "5", "00000002.history", "--cluster",
             "7300000000000000001", "pg_wal/RECOVERYHISTORY"});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->command, Options::Command::kFetch);
  EXPECT_EQ(options->path, "pg_wal/RECOVERYHISTORY");
  EXPECT_EQ(options->file_name, "00000002.history");
  EXPECT_EQ(options->socket_path, "/s");
  EXPECT_EQ(options->timeout_seconds, 5);
  EXPECT_EQ(options->system_identifier, 7300000000000000001u);
  EXPECT_TRUE(options->strict);
}

TEST(OptionsTest, WrongArgumentsAreNamed) {
  struct Row {
    std::vector<const char*> words;
    const char* message;
  };
  const std::string long_name(256, 'x');
  const Row rows[] = {
      {{}, "expected"},
      {{"push"}, "expected"},
      {{"push", "a"}, "expected"},
      {{"push", "a", "b", "c"}, "expected"},
      {{"pull", "a", "b"}, "expected"},
      {{"push", "", "b"}, "empty path"},
      {{"push", "a", long_name.c_str()}, "255"},
      {{"push", "a", "b", "--sockets=x"}, "--sockets"},
      {{"push", "a", "b", "--socket"}, "--socket"},
      {{"push", "a", "b", "--socket="}, "bad value"},
      {{"push", "a", "b", "--timeout=0"}, "bad value \"0\""},
      {{"push", "a", "b", "--timeout=1h"}, "bad value \"1h\""},
      {{"push", "a", "b", "--timeout=86401"}, "bad value"},
      {{"push", "a", "b", "--cluster=0"}, "bad value"},
      {{"push", "a", "b", "--cluster=-1"}, "bad value"},
      {{"push", "a", "b", "--cluster=99999999999999999999"}, "bad value"},
  };
  for (const Row& row : rows) {
    std::string error;
    EXPECT_FALSE(Parse(row.words, &error));
    EXPECT_THAT(error, HasSubstr(row.message));
  }
}

TEST(OptionsTest, HelpAndVersionWinOverAllElse) {
  EXPECT_EQ(Parse({"push", "--help"})->command, Options::Command::kHelp);
  EXPECT_EQ(Parse({"-h"})->command, Options::Command::kHelp);
  EXPECT_EQ(Parse({"--version"})->command, Options::Command::kVersion);
}

// PostgreSQL takes 126 and more from restore_command as an order to stop.
TEST(OptionsTest, OnlyStrictFetchUsesACodeThatStopsTheServer) {
  for (const ExitCode code : {kDone, kNotFound, kUsage, kTryAgain, kFailed}) EXPECT_LT(code, 126);
  EXPECT_GT(kStopRecovery, 128);
  for (const char* code : {"0 done", "1 not in the archive", "2 wrong usage", "3 try again",
                           "4 refused", "200 fetch, strict"}) {
    EXPECT_THAT(kHelpText, HasSubstr(code));
  }
}

}  // namespace
}  // namespace metal::wal
