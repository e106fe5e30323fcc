// Reads fields of ASCII text out of log pages.
// Threading: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace metal::disk {

// The text without trailing spaces, up to a NUL; bytes outside printable ASCII become '?'.
// REQUIRES: offset + length <= data.size().
inline std::string LoadText(std::span<const std::byte> data, size_t offset, size_t length) {
  std::string text;
  for (size_t i = 0; i < length; ++i) {
    const auto byte = std::to_integer<unsigned char>(data[offset + i]);
    if (byte == 0) break;
    text.push_back(byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '?');
  }
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}

}  // namespace metal::disk
