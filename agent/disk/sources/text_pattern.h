// Patterns of lines that other programs write: literal text with fields in braces.
//   {*}     anything, as little as possible
//   {name}  the same, kept under that name
// A pattern must match the whole line. Matching takes time linear in line × fields, and no
// recursion: lines come from outside.
// Threading: pure functions.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace metal::disk {

using TextFields = std::map<std::string_view, std::string_view>;

// The fields of `line`, which they point into; nullopt when it does not match. Each field ends
// where the literal after it stands first; the last literal stands at the line's end.
// REQUIRES: no two fields without text between them.
std::optional<TextFields> MatchText(std::string_view pattern, std::string_view line);

// A number in decimal or, after "0x", in hex, with or without a sign; nullopt for all else.
std::optional<int64_t> ParseTextNumber(std::string_view text);

}  // namespace metal::disk
