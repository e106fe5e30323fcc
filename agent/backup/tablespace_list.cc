#include "agent/backup/tablespace_list.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <vector>

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

std::set<uint32_t> TablespaceMapOids(std::string_view map) {
  std::set<uint32_t> oids;
  while (!map.empty()) {
    size_t end = 0;
    while (end < map.size() && map[end] != '\n') end += map[end] == '\\' ? 2 : 1;
    const std::string_view line = map.substr(0, end);
    if (const auto oid = ParseOid(line.substr(0, line.find(' ')))) oids.insert(*oid);
    map.remove_prefix(std::min(end + 1, map.size()));
  }
  return oids;
}

absl::Status CheckTablespaceMap(const TablespaceList& links, std::string_view map) {
  std::set<uint32_t> expected;
  for (const auto& [oid, location] : links) {
    if (!location.empty()) expected.insert(oid);
  }
  const std::set<uint32_t> mapped = TablespaceMapOids(map);
  if (mapped == expected) return absl::OkStatus();
  for (const uint32_t oid : mapped) {
    if (expected.erase(oid) == 0) expected.insert(oid);
  }
  return base::Error(
      absl::StatusCode::kAborted,
      "tablespace {} is only in one of pg_tblspc and the server's tablespace_map: it "
      "changed while the backup began. HINT: take the backup again",
      *expected.begin());
}

}  // namespace metal::backup
