// Pages of drives for tests, from tests/unit/disk/nvme/pages (its README.md has the format).
// Threading: pure functions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace metal::testing {

using Page = std::vector<std::byte>;

// `value` little-endian in `size` bytes.
inline void Put(Page& page, size_t offset, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) page.at(offset + i) = static_cast<std::byte>(value >> (8 * i));
}

inline void PutField(Page& page, size_t offset, const std::string& type, std::istringstream& line) {
  if (type.starts_with("u")) {
    std::string number;
    line >> number;
    Put(page, offset, std::stoull(number, nullptr, 0), std::stoul(type.substr(1)) / 8);
  } else if (type == "hex") {
    for (std::string byte; line >> byte;) Put(page, offset++, std::stoul(byte, nullptr, 16), 1);
  } else if (type.starts_with("text")) {
    std::string text;
    std::getline(line >> std::ws, text);
    text.erase(text.find_last_not_of(' ') + 1);
    text.resize(std::stoul(type.substr(4)), ' ');
    for (const char c : text) Put(page, offset++, static_cast<unsigned char>(c), 1);
  } else {
    ADD_FAILURE() << "unknown type " << type;
  }
}

inline Page LoadPage(const std::string& name) {
  const auto path = std::filesystem::path(__FILE__).parent_path() / "pages" / name;
  std::ifstream file(path);
  EXPECT_TRUE(file.is_open()) << path;
  Page page;
  size_t base = 0;
  for (std::string text; std::getline(file, text);) {
    std::istringstream line(text.substr(0, text.find('#')));
    std::string word, type;
    if (!(line >> word)) continue;
    if (word == "size" || word == "at") {
      size_t number = 0;
      line >> number;
      if (word == "size") page.resize(number);
      if (word == "at") base = number;
      continue;
    }
    line >> type;
    PutField(page, base + std::stoul(word), type, line);
  }
  return page;
}

}  // namespace metal::testing
