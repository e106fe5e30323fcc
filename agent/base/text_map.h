// Maps of strings as text for the journal: "key=value" lines, with newline, backslash and (in keys)
// '=' escaped. Threading: pure functions.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace metal::base {

// "\" → "\\", newline → "\n", "=" → "\e".
std::string EscapeLine(std::string_view text);
std::string UnescapeLine(std::string_view text);

std::string EncodeMap(const std::map<std::string, std::string>& map);
// Lines without '=' are left out.
std::map<std::string, std::string> DecodeMap(std::string_view text);

}  // namespace metal::base
