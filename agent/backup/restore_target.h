// RestoreTarget: the directory that a restore makes, with its tablespaces and WAL directory:
// checked, locked, marked as half made, cleaned up after a restore that died, and finished. Writes
// only what Begin found empty or what its own notes name. Threading: one thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/file_list.h"
#include "agent/base/fd.h"

namespace metal::backup {

class RestoreTarget {
 public:
  struct Options {
    std::string directory;                        // absolute
    std::string wal_directory;                    // empty: inside
    std::map<uint32_t, std::string> tablespaces;  // final location by OID
    std::string version_directory;                // PG_<major>_<catalog version>
    std::string backup;                           // for the sentinel's notes
  };
  explicit RestoreTarget(Options options) : options_(std::move(options)) {}

  // FAILED_PRECONDITION/RESTORE_TARGET: not empty, in use, or a place inside another one. Changes
  // nothing.
  absl::Status Check() const;
  // RESOURCE_EXHAUSTED/NO_SPACE unless each filesystem has room. `bytes` by tablespace OID, 0: the
  // data directory itself.
  absl::Status CheckSpace(const std::map<uint32_t, uint64_t>& bytes) const;
  // Creates the directory, locks it, removes what an earlier restore left, writes the sentinel.
  absl::Status Begin();
  // Makes a directory or tablespace of the file list.
  absl::Status Make(const FileListRecord& record);
  // One syncfs for each filesystem; reports write-back errors since Begin.
  absl::Status Sync();
  // Removes the sentinel: the directory is complete.
  absl::Status Finish();

  const std::string& directory() const { return options_.directory; }

 private:
  absl::Status CheckPlace(const std::string& path, const std::string& what, bool ours) const;
  absl::Status RemoveLeftovers();
  std::vector<std::string> OuterPlaces() const;

  const Options options_;
  base::UniqueFd lock_;
  std::vector<base::UniqueFd> filesystems_;  // a directory on each
};

// tablespace_map with other locations, escaped as PostgreSQL does. Lines of OIDs that are not in
// `locations` stay.
std::string RewriteTablespaceMap(const std::string& text,
                                 const std::map<uint32_t, std::string>& locations);

}  // namespace metal::backup
