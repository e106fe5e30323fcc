#include "agent/base/proc.h"

#include <unistd.h>

#include "agent/base/clock.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"

namespace metal::base {
namespace {

using ::metal::testing::StatusIs;
using ::testing::Contains;

constexpr const char* kStat =
    "4242 (a (b) c) S 17 4242 4242 0 -1 4194560 100 0 0 0 250 50 9 9 20 0 1 0 987654 1000 200 "
    "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n";

TEST(ProcStatTest, ACommandWithParenthesesDoesNotShiftTheFields) {
  ASSERT_OK_AND_ASSIGN(const ProcStat stat, ParseProcStat(kStat));
  EXPECT_EQ(stat.pid, 4242);
  EXPECT_EQ(stat.command, "a (b) c");
  EXPECT_EQ(stat.state, 'S');
  EXPECT_EQ(stat.parent, 17);
  EXPECT_EQ(stat.start_ticks, 987654u);
  EXPECT_EQ(stat.cpu, absl::Seconds(300) / static_cast<double>(sysconf(_SC_CLK_TCK)));
}

TEST(ProcStatTest, EveryCutIsRejectedOrWhole) {
  const std::string text = kStat;
  const size_t enough = text.find("987654") + 1;
  for (size_t size = 0; size < enough; ++size) {
    EXPECT_THAT(ParseProcStat(text.substr(0, size)), StatusIs(absl::StatusCode::kInvalidArgument))
        << size;
  }
}

TEST(ProcTest, ThisProcessIsSeen) {
  ASSERT_OK_AND_ASSIGN(const ProcStat self, ReadProcStat(getpid()));
  EXPECT_EQ(self.parent, getppid());
  ASSERT_OK_AND_ASSIGN(const absl::Time start, ProcessStartTime(self));
  EXPECT_LT(start, RealClock().Now() + absl::Seconds(2));
  EXPECT_GT(start, RealClock().Now() - absl::Hours(1));
  EXPECT_THAT(ListProcesses(), Contains(getpid()));
  EXPECT_TRUE(ProcessExe(getpid())->ends_with("test_base"));
  EXPECT_TRUE(ReadProcIo(getpid())->read_bytes > 0);
  EXPECT_TRUE(ProcessArguments(getpid()).at(0).ends_with("test_base"));
  char cwd[4096];
  EXPECT_EQ(ProcessCwd(getpid()), std::string(getcwd(cwd, sizeof cwd)));
}

TEST(ProcTest, AProcessThatDoesNotExistIsNotFound) {
  EXPECT_THAT(ReadProcStat(0x3fffff), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(ProcessExe(0x3fffff), std::nullopt);
  EXPECT_EQ(ProcessCommandLine(0x3fffff), "");
  EXPECT_TRUE(ProcessArguments(0x3fffff).empty());
}

}  // namespace
}  // namespace metal::base
