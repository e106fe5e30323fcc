#include "agent/backup/tablespace_map.h"

#include <algorithm>

#include "agent/backup/copy_rules.h"

namespace metal::backup {

std::string RewriteTablespaceMap(const std::string& text,
                                 const std::map<uint32_t, std::string>& locations) {
  std::string out;
  size_t start = 0;
  while (start < text.size()) {
    // A backslash escapes the next byte, also a newline.
    size_t end = start;
    while (end < text.size() && text[end] != '\n') end += text[end] == '\\' ? 2 : 1;
    end = std::min(end, text.size());
    const std::string line = text.substr(start, end - start);
    const size_t space = line.find(' ');
    const auto oid = ParseOid(std::string_view(line).substr(0, space));
    const auto location = oid ? locations.find(*oid) : locations.end();
    if (location == locations.end()) {
      out += line;
    } else {
      out += line.substr(0, space) + " ";
      for (const char c : location->second) {
        if (c == '\n' || c == '\r' || c == '\\') out += '\\';
        out += c;
      }
    }
    if (end < text.size()) out += '\n';
    start = end + 1;
  }
  return out;
}

}  // namespace metal::backup
