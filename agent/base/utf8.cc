#include "agent/base/utf8.h"

#include <cstdint>

namespace metal::base {
namespace {

// Length of the well-formed sequence at the start of `text`; 0 when there is none. REQUIRES:
// !text.empty().
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first == 0) return 0;
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  // The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF.
  const uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::string ToValidUtf8(std::string_view text, size_t limit) {
  std::string valid;
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    const size_t taken = length == 0 ? 1 : length;
    if (valid.size() + taken > limit) break;
    if (length == 0) {
      valid += '?';
    } else {
      valid += text.substr(0, length);
    }
    text.remove_prefix(taken);
  }
  return valid;
}

}  // namespace metal::base
