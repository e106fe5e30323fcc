#include "agent/pg/postmaster_pid.h"

#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;

constexpr const char* kFull =
    "4711\n/srv/pg/data\n1795312555\n5433\n/run/metal\n127.0.0.1\n  11002353    196649\nready   \n";

TEST(PostmasterPidTest, AllEightLinesAreRead) {
  ASSERT_OK_AND_ASSIGN(const PostmasterPid file, ParsePostmasterPid(kFull));
  EXPECT_EQ(file.pid, 4711);
  EXPECT_FALSE(file.single_user);
  EXPECT_EQ(file.data_directory, "/srv/pg/data");
  EXPECT_EQ(file.start_time, absl::FromUnixSeconds(1795312555));
  EXPECT_EQ(file.port, 5433);
  EXPECT_EQ(file.socket_dir, "/run/metal");
  EXPECT_EQ(file.listen_address, "127.0.0.1");
  EXPECT_EQ(file.status, PostmasterStatus::kReady);
}

TEST(PostmasterPidTest, EveryStatusWordIsKnown) {
  const std::pair<const char*, PostmasterStatus> words[] = {
      {"starting", PostmasterStatus::kStarting},
      {"stopping", PostmasterStatus::kStopping},
      {"ready   ", PostmasterStatus::kReady},
      {"standby ", PostmasterStatus::kStandby},
      {"dancing ", PostmasterStatus::kUnknown}};
  for (const auto& [word, status] : words) {
    const std::string text = std::string("1\n/d\n2\n3\n/s\n\n4 5\n") + word + "\n";
    ASSERT_OK_AND_ASSIGN(const PostmasterPid file, ParsePostmasterPid(text));
    EXPECT_EQ(file.status, status) << word;
    EXPECT_EQ(file.listen_address, "");
  }
}

TEST(PostmasterPidTest, EveryPrefixParsesBecauseTheServerWritesLineByLine) {
  const std::string full = kFull;
  for (size_t end = full.find('\n'); end < full.size(); ++end) {
    ASSERT_OK_AND_ASSIGN(const PostmasterPid file, ParsePostmasterPid(full.substr(0, end)));
    EXPECT_EQ(file.pid, 4711);
  }
}

TEST(PostmasterPidTest, ANegativePidIsASingleUserServer) {
  ASSERT_OK_AND_ASSIGN(const PostmasterPid file, ParsePostmasterPid("-77\n/d\n1\n"));
  EXPECT_EQ(file.pid, 77);
  EXPECT_TRUE(file.single_user);
}

TEST(PostmasterPidTest, GarbageIsRejected) {
  for (const char* text :
       {"", "\n", "abc\n", "12x\n", "0\n", "99999999999999\n", "-2147483648\n"}) {
    EXPECT_THAT(ParsePostmasterPid(text), StatusIs(absl::StatusCode::kInvalidArgument)) << text;
  }
}

TEST(PostmasterPidTest, AMissingOrEmptyFileIsNoPostmaster) {
  testing::TempDir dir;
  ASSERT_OK_AND_ASSIGN(auto missing, ReadPostmasterPid(dir.path()));
  EXPECT_FALSE(missing.has_value());
  dir.Write("postmaster.pid", "");
  ASSERT_OK_AND_ASSIGN(auto empty, ReadPostmasterPid(dir.path()));
  EXPECT_FALSE(empty.has_value());
  dir.Write("postmaster.pid", kFull);
  ASSERT_OK_AND_ASSIGN(auto full, ReadPostmasterPid(dir.path()));
  ASSERT_TRUE(full.has_value());
  EXPECT_EQ(full->pid, 4711);
}

}  // namespace
}  // namespace metal::pg
