#include "agent/base/kernel_record.h"

#include <charconv>

namespace metal::base {
namespace {

constexpr int kLevelBits = 3;

// The text up to `end`, which is taken away as well; all of it when there is no `end`.
std::string_view TakeUntil(std::string_view& text, char end) {
  const size_t at = text.find(end);
  const std::string_view taken = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return taken;
}

template <typename Number>
bool ParseAll(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

std::string Unescape(std::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    if (text[i] == '\\' && text.substr(i + 1).starts_with('x') && i + 4 <= text.size()) {
      const auto [end, error] = std::from_chars(&text[i + 2], &text[i + 2] + 2, byte, 16);
      if (error == std::errc() && end == &text[i + 2] + 2) {
        plain += static_cast<char>(byte);
        i += 3;
        continue;
      }
    }
    plain += text[i];
  }
  return plain;
}

}  // namespace

std::optional<KernelRecord> ParseKernelRecord(std::string_view record) {
  const size_t separator = record.find(';');
  if (separator == std::string_view::npos) return std::nullopt;
  std::string_view header = record.substr(0, separator);
  std::string_view body = record.substr(separator + 1);

  KernelRecord parsed;
  unsigned priority = 0;
  uint64_t microseconds = 0;
  if (!ParseAll(TakeUntil(header, ','), priority)) return std::nullopt;
  if (!ParseAll(TakeUntil(header, ','), parsed.sequence)) return std::nullopt;
  if (!ParseAll(TakeUntil(header, ','), microseconds)) return std::nullopt;
  const std::string_view flags = TakeUntil(header, ',');
  parsed.facility = static_cast<int>(priority >> kLevelBits);
  parsed.level = static_cast<int>(priority & ((1u << kLevelBits) - 1));
  parsed.since_boot = absl::Microseconds(microseconds);
  parsed.continues = flags == "c" || flags == "+";

  parsed.text = Unescape(TakeUntil(body, '\n'));
  while (!body.empty()) {
    std::string_view line = TakeUntil(body, '\n');
    if (!line.starts_with(' ')) continue;
    line.remove_prefix(1);
    const std::string_view key = TakeUntil(line, '=');
    if (!key.empty()) parsed.dictionary[std::string(key)] = Unescape(line);
  }
  return parsed;
}

}  // namespace metal::base
