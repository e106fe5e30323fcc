#include "agent/base/log.h"

#include "gmock/gmock.h"

namespace metal::base {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr LogLevel kLevels[] = {LogLevel::kTrace, LogLevel::kDebug, LogLevel::kInfo,
                                LogLevel::kWarning, LogLevel::kError};

class LogTest : public ::testing::Test {
 protected:
  ~LogTest() override { SetLogLevel(LogLevel::kInfo); }
};

TEST_F(LogTest, LevelsHaveTheNamesOfTheConfiguration) {
  const char* const names[] = {"trace", "debug", "info", "warning", "error"};
  for (size_t i = 0; i < std::size(names); ++i) EXPECT_EQ(ParseLogLevel(names[i]), kLevels[i]);
  for (const char* other : {"", "Info", "verbose", "off"}) EXPECT_FALSE(ParseLogLevel(other));
}

TEST_F(LogTest, LinesBelowTheLevelAreDropped) {
  for (const LogLevel least : kLevels) {
    SetLogLevel(least);
    for (const LogLevel level : kLevels) {
      EXPECT_EQ(LogEnabled(level), level >= least);
      ::testing::internal::CaptureStderr();
      Log(level, "event=said");
      const std::string written = ::testing::internal::GetCapturedStderr();
      if (level >= least) {
        EXPECT_THAT(written, HasSubstr("event=said\n"));
      } else {
        EXPECT_THAT(written, Not(HasSubstr("event=said")));
      }
    }
  }
}

}  // namespace
}  // namespace metal::base
