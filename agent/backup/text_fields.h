// Fields of the repository's text files: tab-separated, every byte outside 0x20–0x7e and '%'
// written as %XX. Threading: pure functions.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"

namespace metal::backup {

std::string EscapeField(std::string_view bytes);
void AppendEscaped(std::string_view bytes, std::string& out);
// nullopt when a '%' is not followed by two upper-case hex digits or a byte should have been
// escaped.
std::optional<std::string> UnescapeField(std::string_view field);

// Splits at tabs. Fills at most fields.size() entries; returns how many fields there are (may be
// more).
size_t SplitFields(std::string_view line, std::span<std::string_view> fields);

// The whole text must be one number without sign or spaces.
template <typename Number>
bool ParseField(std::string_view text, Number& value, int base = 10) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size();
}

// "2026-11-22T02:15:00.123456Z".
std::string FormatTimeField(absl::Time time);
std::optional<absl::Time> ParseTimeField(std::string_view text);

// Lower-case hexadecimal.
std::string HexOf(std::span<const unsigned char> bytes);

// True for a relative path of plain components: no empty ones, no "." or "..", no leading or
// trailing slash, no NUL.
bool IsSafeRelativePath(std::string_view path);

}  // namespace metal::backup
