// RestoreTarget: the directory that a restore makes, with its tablespaces and WAL directory:
// checked, locked, marked as half made, cleaned up after a restore that died, and finished. Writes
// only what Begin found empty, and removes only what carries the mark of the restore that died
// (restore_notes.h). Threading: one thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/file_list.h"
#include "agent/backup/restore_notes.h"
#include "agent/backup/restore_places.h"
#include "agent/base/fd.h"
#include "agent/base/units.h"

namespace metal::backup {

class RestoreTarget {
 public:
  struct Options {
    std::string directory;                        // absolute
    std::string wal_directory;                    // empty: inside
    std::map<uint32_t, std::string> tablespaces;  // final location by OID
    std::set<uint32_t> inside;           // tablespaces that move along inside of `directory`
    std::string version_directory;       // PG_<major>_<catalog version>
    std::string backup;                  // for the sentinel's notes
    std::vector<RestorePlace> kept_out;  // the repository, this node's cluster
  };
  explicit RestoreTarget(Options options) : options_(std::move(options)) {}

  // FAILED_PRECONDITION/RESTORE_TARGET: not empty, in use, or a place that is or lies inside
  // another one or one of `kept_out`. Probe files of the disk monitor do not count. Changes
  // nothing.
  absl::Status Check() const;
  // As Check, for a target whose contents are to go: those that `notes`, once they are its
  // sentinel, let Begin remove. The places outside of it must carry their mark already.
  absl::Status CheckReplacing(const RestoreNotes& notes) const;
  // RESOURCE_EXHAUSTED/NO_SPACE unless each filesystem has room. `bytes` by tablespace OID, 0: the
  // data directory itself. `freed` by device: what goes before the first byte is written.
  // `reserve`: more of it on each.
  absl::Status CheckSpace(const std::map<uint32_t, uint64_t>& bytes,
                          const std::map<uint64_t, uint64_t>& freed = {},
                          base::ByteCount reserve = {64 << 20}) const;
  // Creates the directory, locks it, removes what an earlier restore left, writes the sentinel.
  absl::Status Begin();
  // Makes a directory or tablespace of the file list.
  absl::Status Make(const FileListRecord& record);
  // One syncfs for each filesystem; reports write-back errors since Begin.
  absl::Status Sync();
  // Removes the sentinel, and then the marks of the places: the directory is complete.
  absl::Status Finish();

  const std::string& directory() const { return options_.directory; }

 private:
  std::map<uint32_t, std::string> OuterTablespaces() const;
  absl::Status CheckApart() const;
  absl::Status CheckDirectory() const;
  absl::Status CheckPlaces(const std::optional<RestoreNotes>& notes) const;
  absl::Status CheckTablespace(uint32_t oid, const std::string& location,
                               const std::optional<RestoreNotes>& notes) const;
  absl::Status CheckWalDirectory(const std::optional<RestoreNotes>& notes) const;
  absl::Status Lock();
  absl::Status RemoveLeftovers();
  absl::Status MarkOuterPlaces(const RestoreNotes& notes);
  absl::Status HoldFilesystems();

  const Options options_;
  RestoreNotes notes_;
  base::UniqueFd lock_;
  std::vector<base::UniqueFd> filesystems_;  // a directory on each
};

}  // namespace metal::backup
