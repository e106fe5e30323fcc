// A backup in the repository as restore and verify see it: found, its packs and file list checked
// before they are used. Threading: one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/catalog.h"
#include "agent/backup/context.h"
#include "agent/backup/file_list.h"
#include "agent/backup/unpack_pipeline.h"
#include "agent/backup/wal_archive.h"
#include "agent/store/repository.h"

namespace metal::backup {

struct StoredBackup {
  BackupInfo info;
  std::string list_path;
  std::string packs_directory;
};

// `system_identifier` 0: the one system that has it.
absl::StatusOr<StoredBackup> OpenStoredBackup(const std::string& repository_path,
                                              uint64_t system_identifier, std::string_view label);

absl::StatusOr<std::unique_ptr<FileListReader>> OpenFileList(const StoredBackup& backup);

// Every pack is there, has its size and a good header. DATA_LOSS/REPOSITORY names the first that
// does not.
absl::Status CheckPacks(const StoredBackup& backup);

// Reads the whole file list, which checks it and that the manifest has its tablespaces; answers the
// bytes of files by tablespace OID, 0: the data directory.
absl::StatusOr<std::map<uint32_t, uint64_t>> ScanFileList(const StoredBackup& backup,
                                                          observe::Progress& progress);

// The WAL [start, stop) without which the copy never becomes consistent.
WalRange WalRangeOf(const BackupHeader& header);

// FAILED_PRECONDITION/WAL_MISSING unless the archive holds the WAL [start, stop) of the backup.
// Answers the number of segments; 0 without an archive in the context.
absl::StatusOr<uint64_t> CheckBackupWal(const BackupHeader& header,
                                        const OperationContext& context);

// Options for the packs of this backup, with the context's threads, depth and memory.
UnpackOptions UnpackOptionsFor(const StoredBackup& backup, const OperationContext& context);
// Takes its share of context.memory, which may wait in a phase of its own: begin the phase of the
// work after it.
absl::StatusOr<std::unique_ptr<UnpackPipeline>> MakeUnpackPipeline(UnpackOptions options,
                                                                   const OperationContext& context);

}  // namespace metal::backup
