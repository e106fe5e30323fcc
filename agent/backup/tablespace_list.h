// The tablespaces of a backup: those that the server has when the backup starts. One that
// is created later is made by WAL replay, and its files come from there: a copy of it would have no
// line in tablespace_map. Source: PostgreSQL src/backend/access/transam/xlog.c
// (do_pg_backup_start), 13–18. Threading: pure but for ListTablespaces, which blocks on the data
// disk.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace metal::backup {

// Where the link points, by OID; empty for an in-place tablespace, which is a directory.
using TablespaceList = std::map<uint32_t, std::string>;

// What is in <data_directory>/pg_tblspc now. Entries that are no tablespaces, or vanish meanwhile,
// are left out.
absl::StatusOr<TablespaceList> ListTablespaces(const std::string& data_directory);

// Location by OID from the lines of a tablespace_map, in which a backslash escapes the byte after
// it.
TablespaceList ParseTablespaceMap(std::string_view map);

// One line of a tablespace_map, with its newline.
std::string TablespaceMapLine(uint32_t oid, std::string_view location);

}  // namespace metal::backup
