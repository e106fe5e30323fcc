#include "agent/backup/tablespace_list.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "agent/backup/copy_rules.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {

absl::StatusOr<TablespaceList> ListTablespaces(const std::string& data_directory) {
  const std::string links = base::JoinPath(data_directory, "pg_tblspc");
  TablespaceList list;
  auto names = base::ListDirectory(links);
  if (absl::IsNotFound(names.status())) return list;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const auto oid = ParseOid(name);
    if (!oid) continue;
    const std::string path = base::JoinPath(links, name);
    char target[PATH_MAX];
    const ssize_t length = readlink(path.c_str(), target, sizeof target);
    if (length < 0 && errno == ENOENT) continue;
    if (length < 0 && errno != EINVAL) return base::ErrnoStatus(errno, "read link", path);
    list[*oid] = std::string(target, length < 0 ? 0 : static_cast<size_t>(length));
  }
  return list;
}

TablespaceList ParseTablespaceMap(std::string_view map) {
  TablespaceList list;
  std::string line;
  for (size_t i = 0; i <= map.size(); ++i) {
    if (i < map.size() && map[i] != '\n') {
      if (map[i] == '\\' && i + 1 < map.size()) ++i;
      line += map[i];
      continue;
    }
    const size_t space = line.find(' ');
    const auto oid = ParseOid(std::string_view(line).substr(0, space));
    if (oid && space != std::string::npos) list[*oid] = line.substr(space + 1);
    line.clear();
  }
  return list;
}

std::string TablespaceMapLine(uint32_t oid, std::string_view location) {
  std::string line = fmt::format("{} ", oid);
  for (const char c : location) {
    if (c == '\n' || c == '\r' || c == '\\') line += '\\';
    line += c;
  }
  return line + '\n';
}

}  // namespace metal::backup
