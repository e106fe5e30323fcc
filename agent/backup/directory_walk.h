// Walks a data directory and its tablespaces, one entry at a time, keeping only the open
// directories in memory. Applies the copy rules: what it gives is what a backup holds. Entries that
// vanish while it walks are left out. Threading: one thread at a time. Blocks on the data disk for
// metadata.
#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/fd.h"
#include "agent/base/units.h"

namespace metal::backup {

struct WalkOptions {
  std::string data_directory;
  int major_version = 0;
  uint32_t catalog_version = 0;
  // OIDs of the tablespaces to walk; others are left out. Unset: whichever are there.
  std::optional<std::set<uint32_t>> tablespaces = std::nullopt;
};

enum class WalkKind : uint8_t { kDirectory, kTablespace, kFile, kEnd };

struct WalkEntry {
  WalkKind kind = WalkKind::kEnd;
  std::string path;  // relative; a tablespace's files are pg_tblspc/<oid>/…
  uint32_t mode = 0;
  // kTablespace: its OID and where the link points.
  uint32_t oid = 0;
  std::string location;
  // kFile: open it with openat(directory_fd, name); valid until the next call.
  int directory_fd = -1;
  const char* name = nullptr;
  uint64_t size = 0;
  bool relation = false;  // pages carry checksums
  uint32_t segment = 0;   // of the relation's file
};

class DirectoryWalk {
 public:
  explicit DirectoryWalk(WalkOptions options);
  ~DirectoryWalk();

  // A directory comes before what is in it. kEnd at the end. FAILED_PRECONDITION for a link that is
  // neither a tablespace nor resolvable, or a nesting deeper than 64.
  absl::Status Next(WalkEntry& entry);

  // Files that are neither regular nor directories (sockets, devices), at most 100; they are left
  // out.
  const std::vector<std::string>& special_files() const { return special_files_; }

  // Tablespaces that were left out because options.tablespaces does not name them, and those whose
  // links were given.
  const std::set<uint32_t>& later_tablespaces() const { return later_tablespaces_; }
  const std::set<uint32_t>& given_tablespaces() const { return given_tablespaces_; }

 private:
  using FileId = std::pair<dev_t, ino_t>;
  struct Level {
    DIR* stream = nullptr;
    std::string path;               // relative, empty at the top
    bool relations = false;         // files are relation files
    bool tablespace_links = false;  // pg_tblspc
    bool version_only = false;      // a tablespace's top: only this server version's directory
  };

  absl::Status Begin();
  absl::Status Push(int parent_fd, const char* name, std::string path, bool version_only);
  void Pop();
  absl::StatusOr<bool> TakeDirectory(const struct stat& status, const char* name, std::string path,
                                     WalkEntry& entry);
  absl::StatusOr<bool> TakeFile(const struct stat& status, const char* name, std::string path,
                                WalkEntry& entry);
  absl::StatusOr<bool> TakeTablespace(const struct stat& status, const char* name, std::string path,
                                      WalkEntry& entry);
  absl::StatusOr<bool> Take(const char* name, WalkEntry& entry);
  bool IsLaterTablespace(const char* name);
  bool HasInitFork(int directory_fd, std::string_view relation);
  void QueueEmptyDirectories(const std::string& path, uint32_t mode);

  const WalkOptions options_;
  const std::string version_directory_;
  bool begun_ = false;
  std::vector<Level> levels_;
  std::set<FileId> tablespace_ids_;  // directories that links in pg_tblspc name: not copied twice
  std::vector<WalkEntry> queued_;    // to be given next, last first
  std::string init_checked_;         // relation of the last HasInitFork, with its answer
  bool init_answer_ = false;
  std::vector<std::string> special_files_;
  std::set<uint32_t> later_tablespaces_, given_tablespaces_;
};

}  // namespace metal::backup
