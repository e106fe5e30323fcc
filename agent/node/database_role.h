// Which roles of a directory are the database's: a sick or full disk of the repository is no reason
// to stop or hold up the server.
// Threading: pure.
#pragma once

#include <string_view>

namespace metal::node {

// `role`: as the disk monitor names its targets.
inline bool IsDatabaseRole(std::string_view role) {
  return role == "data" || role == "wal" || role.starts_with("tablespace:");
}

}  // namespace metal::node
