#include "agent/base/utf8.h"

#include <gtest/gtest.h>

namespace metal::base {
namespace {

TEST(Utf8Test, GoodTextIsKept) {
  for (const char* text : {"", "plain", "größe", "\u20ac", "\U0001f418", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_EQ(ToValidUtf8(text), text);
  }
}

TEST(Utf8Test, EachBadByteBecomesAQuestionMark) {
  EXPECT_EQ(ToValidUtf8("a\xff z"), "a? z");
  EXPECT_EQ(ToValidUtf8("\xc3"), "?");                 // cut short
  EXPECT_EQ(ToValidUtf8("\xc0\xaf"), "??");            // overlong
  EXPECT_EQ(ToValidUtf8("\xe0\x9f\xbf"), "???");       // overlong
  EXPECT_EQ(ToValidUtf8("\xed\xa0\x80"), "???");       // surrogate
  EXPECT_EQ(ToValidUtf8("\xf4\x90\x80\x80"), "????");  // above U+10FFFF
  EXPECT_EQ(ToValidUtf8(std::string_view("a\0b", 3)), "a?b");
}

TEST(Utf8Test, CutFallsBetweenCharacters) {
  EXPECT_EQ(ToValidUtf8("größe", 4), "grö");
  EXPECT_EQ(ToValidUtf8("größe", 3), "gr");
  EXPECT_EQ(ToValidUtf8("abc", 0), "");
}

}  // namespace
}  // namespace metal::base
