// tablespace_map, the file that tells a server where the tablespaces of a backup go.
// Source: src/backend/access/transam/xlog.c, do_pg_backup_start and read_tablespace_map. Threading:
// pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace metal::backup {

// tablespace_map with other locations, escaped as PostgreSQL does. Lines of OIDs that are not in
// `locations` stay.
std::string RewriteTablespaceMap(const std::string& text,
                                 const std::map<uint32_t, std::string>& locations);

}  // namespace metal::backup
