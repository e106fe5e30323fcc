#include "agent/backup/text_fields.h"

#include "gtest/gtest.h"

namespace metal::backup {
namespace {

TEST(TextFieldsTest, EveryByteSurvivesEscaping) {
  std::string all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  const std::string escaped = EscapeField(all);
  for (const char c : escaped) EXPECT_TRUE(c >= 0x20 && c <= 0x7e);
  EXPECT_EQ(UnescapeField(escaped), all);
  EXPECT_EQ(EscapeField("base/1/16384"), "base/1/16384");
}

TEST(TextFieldsTest, BadEscapesAreRejected) {
  for (const char* bad : {"%", "%4", "%4g", "%ff", "\t", "\x80", "%0"}) {
    EXPECT_FALSE(UnescapeField(bad).has_value()) << bad;
  }
}

TEST(TextFieldsTest, FieldsAreCountedBeyondTheGivenRoom) {
  std::string_view two[2];
  EXPECT_EQ(SplitFields("a\tb\tc", two), 3u);
  EXPECT_EQ(two[1], "b");
  EXPECT_EQ(SplitFields("", two), 1u);
}

TEST(TextFieldsTest, TimesSurviveTheRoundTrip) {
  for (const int64_t micros : {int64_t{0}, int64_t{1795313700123456}, int64_t{951782399999999}}) {
    const absl::Time time = absl::FromUnixMicros(micros);
    EXPECT_EQ(ParseTimeField(FormatTimeField(time)), time);
  }
  for (const char* bad : {"", "2026-11-22T02:15:00Z", "2026-13-22T02:15:00.000000Z",
                          "2026-02-30T02:15:00.000000Z", "2026-11-22 02:15:00.000000Z"}) {
    EXPECT_FALSE(ParseTimeField(bad).has_value()) << bad;
  }
}

TEST(TextFieldsTest, OnlyPlainRelativePathsAreSafe) {
  for (const char* safe : {"a", "base/1/16384", "odd name", "..a", "a.."}) {
    EXPECT_TRUE(IsSafeRelativePath(safe)) << safe;
  }
  for (const char* unsafe : {"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/."}) {
    EXPECT_FALSE(IsSafeRelativePath(unsafe)) << unsafe;
  }
  EXPECT_FALSE(IsSafeRelativePath(std::string_view("a\0b", 3)));
}

}  // namespace
}  // namespace metal::backup
