// Writes PostgreSQL's backup_manifest for a restored directory, so that pg_verifybackup checks it.
// Source: PostgreSQL documentation "Backup Manifest Format"; version 1 for 13–16, version 2 with
// System-Identifier from 17. Streamed: the number of files does not matter. Threading: one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/file_list.h"
#include "agent/backup/sha256.h"
#include "agent/base/fd.h"
#include "agent/base/units.h"

namespace metal::backup {

class BackupManifestWriter {
 public:
  struct Options {
    std::string path;  // written as <path>.tmp until Finish
    int major_version = 0;
    uint64_t system_identifier = 0;
    base::TimelineId timeline = 0;
    base::Lsn start_lsn, stop_lsn;
  };
  static absl::StatusOr<std::unique_ptr<BackupManifestWriter>> Create(Options options);

  absl::Status AddFile(const FileEntry& file);
  // Renames into place. Not synced: the caller syncs the filesystem.
  absl::Status Finish();

 private:
  explicit BackupManifestWriter(Options options) : options_(std::move(options)) {}
  absl::Status Append(std::string_view text);
  absl::Status Flush();

  const Options options_;
  base::UniqueFd fd_;
  std::string pending_;
  Sha256 sha256_;
  bool first_ = true;
};

}  // namespace metal::backup
