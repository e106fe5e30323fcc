#include "tools/metalctl/address.h"

#include <gtest/gtest.h>

#include <utility>

namespace metal::ctl {
namespace {

std::pair<std::string, int> Parsed(const std::string& text) {
  std::string host;
  int port = 0;
  if (!ParseAddress(text, &host, &port)) return {"none", 0};
  return {host, port};
}

TEST(ParseAddressTest, NamesNumbersAndSocketDirectories) {
  EXPECT_EQ(Parsed("db1:5432"), std::pair(std::string("db1"), 5432));
  EXPECT_EQ(Parsed("10.0.0.1:1"), std::pair(std::string("10.0.0.1"), 1));
  EXPECT_EQ(Parsed("[fd00::1]:65535"), std::pair(std::string("fd00::1"), 65535));
  EXPECT_EQ(Parsed("/run/with:colon:5432"), std::pair(std::string("/run/with:colon"), 5432));
}

TEST(ParseAddressTest, AllElseIsNone) {
  for (const char* text :
       {"", ":", "db1", "db1:", ":5432", "db1:0", "db1:65536", "db1:+5", "db1:-5", "db1:5432x",
        "db1: 5432", "fd00::1:5432", "[]:5432", "[::1:5432"}) {
    EXPECT_EQ(Parsed(text).first, "none") << text;
  }
}

}  // namespace
}  // namespace metal::ctl
