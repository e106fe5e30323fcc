#include "agent/base/toml_text.h"

#include <gtest/gtest.h>

namespace metal::base {
namespace {

TEST(TomlTextTest, OrdinaryTextIsLeftToTheParser) {
  for (const char* text :
       {"",
        "\xef\xbb\xbf"
        "a = 1",
        "a = 1\r\n\tb = 2\n", "[section]\n[ \"quoted\" ]\n[[array.of]]\n  [indented]\n",
        "# größe\n[a] # größe\n", "a = \"größe 1979-05-27\"\n", "a = -1\nb-1 = 1e-5 # 07:32\n",
        "a = 'größe'\n", "\"größe\" = 1\n", "a = \"\"\nb = ''\n", "a = \"\\\"größe\"\n",
        "a = '\\'\nb = 1\n", "a = \"\"\"größe\n\"größe\\\"\"größe\"\"\"\"\"\n[b]\n",
        "a = '''größe\n[!'''\n", "a = [\n[1],\n[+2], # größe\n[{b = 1}]\n]\n[b]\n",
        "a = \"not closed größe\n[b]\n"}) {
    EXPECT_FALSE(ObjectToTomlText(text).has_value()) << text;
  }
}

struct Row {
  std::string_view text;
  size_t line;
  std::string_view what;
};

TEST(TomlTextTest, WhatTheParserMustNotSeeIsNamedWithItsLine) {
  constexpr std::string_view kBeyond = "character beyond ASCII outside a string or comment";
  constexpr std::string_view kHeader = "section header without a name";
  const Row rows[] = {
      {"a = 1\ngr\xc3\xb6\xc3\x9f = 1\n", 2, kBeyond},
      {"a = \"x\"\xc3\xb6\n", 1, kBeyond},
      {"a = '''\n\n'''\xc3\xb6\n", 3, kBeyond},
      {"a = 1 \xef\xbb\xbf", 1, kBeyond},
      {"a = '\\'\xc3\xb6", 1, kBeyond},
      {"[\xc3\xb6]\n", 1, kHeader},
      {"a = [1]\n[!]\n", 2, kHeader},
      {"  [[ =]]\n", 1, kHeader},
      {"[", 1, kHeader},
      {"[]", 1, kHeader},
      {std::string_view("[\0", 2), 1, kHeader},
      {std::string_view("a\0", 2), 1, "control character 0x00"},
      {"a = 1\nb = 1979-05-27T07:32:00Z\n", 2, "date or time: no option takes one"},
      {"a = [07:32]", 1, "date or time: no option takes one"},
      {"a = 9220-ar", 1, "date or time: no option takes one"},
      {"a = 19'9-05-25 0#'", 1, "quote within a word"},
      {"a = [1}", 1, "} without its opening"},
      {"a = 1\n]", 2, "] without its opening"},
      {"# \x1b[31m", 1, "control character 0x1b"},
      {"a = \"\n\n\x7f", 3, "control character 0x7f"},
  };
  for (const Row& row : rows) {
    const auto objection = ObjectToTomlText(row.text);
    ASSERT_TRUE(objection.has_value()) << row.text;
    EXPECT_EQ(objection->line, row.line) << row.text;
    EXPECT_EQ(objection->what, row.what) << row.text;
  }
}

}  // namespace
}  // namespace metal::base
