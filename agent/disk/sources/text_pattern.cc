#include "agent/disk/sources/text_pattern.h"

#include <charconv>
#include <cstdint>

namespace metal::disk {

std::optional<TextFields> MatchText(std::string_view pattern, std::string_view line) {
  TextFields fields;
  while (true) {
    const size_t open = pattern.find('{');
    const std::string_view literal = pattern.substr(0, open);
    if (!line.starts_with(literal)) return std::nullopt;
    line.remove_prefix(literal.size());
    if (open == std::string_view::npos) {
      if (!line.empty()) return std::nullopt;
      return fields;
    }
    pattern.remove_prefix(open + 1);
    const size_t close = pattern.find('}');
    const std::string_view name = pattern.substr(0, close);
    pattern.remove_prefix(close == std::string_view::npos ? pattern.size() : close + 1);
    const size_t next_open = pattern.find('{');
    const std::string_view next = pattern.substr(0, next_open);
    size_t end = line.size();
    if (next_open == std::string_view::npos) {
      if (!line.ends_with(next)) return std::nullopt;
      end = line.size() - next.size();
    } else {
      end = line.find(next);
      if (end == std::string_view::npos) return std::nullopt;
    }
    if (name != "*") fields[name] = line.substr(0, end);
    line.remove_prefix(end);
  }
}

std::optional<int64_t> ParseTextNumber(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const int base = text.starts_with("0x") ? 16 : 10;
  if (base == 16) text.remove_prefix(2);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size() || value > INT64_MAX) {
    return std::nullopt;
  }
  return negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
}

}  // namespace metal::disk
