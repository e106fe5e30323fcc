#include "agent/base/text_map.h"

namespace metal::base {

std::string EscapeLine(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '=':
        out += "\\e";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string UnescapeLine(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    ++i;
    out += text[i] == 'n' ? '\n' : text[i] == 'e' ? '=' : text[i];
  }
  return out;
}

std::string EncodeMap(const std::map<std::string, std::string>& map) {
  std::string out;
  for (const auto& [key, value] : map) out += EscapeLine(key) + "=" + EscapeLine(value) + "\n";
  return out;
}

std::map<std::string, std::string> DecodeMap(std::string_view text) {
  std::map<std::string, std::string> map;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    map[UnescapeLine(line.substr(0, equals))] = UnescapeLine(line.substr(equals + 1));
  }
  return map;
}

}  // namespace metal::base
