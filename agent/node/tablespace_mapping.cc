#include "agent/node/tablespace_mapping.h"

#include <charconv>

#include "agent/base/status.h"

namespace metal::node {

absl::StatusOr<std::map<uint32_t, std::string>> ParseTablespaceMapping(
    const std::map<std::string, std::string>& mapping) {
  std::map<uint32_t, std::string> parsed;
  for (const auto& [oid_text, path] : mapping) {
    uint32_t oid = 0;
    const char* const end = oid_text.data() + oid_text.size();
    const auto [at, error] = std::from_chars(oid_text.data(), end, oid);
    if (error != std::errc() || at != end || oid == 0) {
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "tablespace_mapping: \"{}\" is no OID. HINT: GetBackup lists them",
                         oid_text);
    }
    if (!path.starts_with("/")) {
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "tablespace_mapping: {} → \"{}\" is no absolute path", oid_text, path);
    }
    parsed[oid] = path;
  }
  return parsed;
}

}  // namespace metal::node
