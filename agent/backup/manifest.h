// The manifest of a backup: a small text file whose appearance under its final name is what makes
// the backup exist. It says everything about the backup but the list of files, which is files.zst
// beside it (see file_list.h) and is bound to the manifest by length and SHA-256. Format:
// agent/docs/repository-format.md. Threading: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"

namespace metal::backup {

inline constexpr std::string_view kManifestName = "manifest";
inline constexpr std::string_view kManifestTemporaryName = "manifest.tmp";
inline constexpr std::string_view kFileListName = "files.zst";
inline constexpr size_t kManifestSizeMax = 16 << 20;
inline constexpr size_t kCorruptPagesKept = 100;

enum class ChecksumVerdict {
  kClean,      // data checksums are on and every page verified
  kSuspect,    // some page did not verify
  kUnchecked,  // data checksums are off, or the page size is not 8 KiB
};

struct CorruptPage {
  std::string path;             // relative to the data directory
  base::BlockNumber block = 0;  // of the relation fork, across its segments
  std::string reason;           // "unchanged on re-read", "lsn ahead of the server"
  friend bool operator==(const CorruptPage&, const CorruptPage&) = default;
};

struct PackReference {
  std::string path;    // "<label>/<n>.pack" below packs/; the label may be another backup's
  uint64_t bytes = 0;  // exact file size
  friend bool operator==(const PackReference&, const PackReference&) = default;
};

struct BackupHeader {
  std::string label;
  std::string type = "full";
  uint64_t system_identifier = 0;
  int postgres_version = 0;  // server_version_num
  uint32_t control_version = 0, catalog_version = 0;
  uint32_t page_size = 8192;
  uint32_t segment_blocks = 131072;  // pages in one segment file of a relation
  uint64_t wal_segment_size = 16 << 20;
  bool from_standby = false;
  base::TimelineId timeline = 0;
  base::Lsn start_lsn, stop_lsn;  // WAL [start, stop) is needed to reach consistency
  absl::Time start_time, stop_time;
  absl::Duration copy_time;  // the part in which files were read

  std::string codec;  // "zstd", "lz4", "none"
  int level = 0;
  std::string io_engine;  // "io_uring", "threads", "pread"

  ChecksumVerdict checksums = ChecksumVerdict::kUnchecked;
  uint64_t corrupt_page_count = 0;
  std::vector<CorruptPage> corrupt_pages;  // the first kCorruptPagesKept
  // Pages that did not verify but were written during the backup: WAL replay writes them anew.
  uint64_t pages_in_window = 0;

  uint64_t files = 0, directories = 0, frames = 0;
  uint64_t bytes = 0;                           // raw bytes of all files
  uint64_t stored_bytes = 0;                    // bytes of packs that this backup wrote
  std::string data_directory;                   // of the source, links resolved
  std::map<uint32_t, std::string> tablespaces;  // location by OID; in-place ones are not listed
  // Those that WAL [start, stop) creates outside of the data directory; unset: nobody looked.
  std::optional<std::map<uint32_t, std::string>> created_tablespaces;
  std::map<std::string, std::string> annotations;

  std::string backup_label, tablespace_map;  // byte for byte; also files of the backup

  std::vector<PackReference> packs;  // extents name them by index, from 0
  uint64_t file_list_bytes = 0;      // of the decompressed file list
  std::string file_list_sha256;      // of the decompressed file list, 64 hex digits

  friend bool operator==(const BackupHeader&, const BackupHeader&) = default;
};

// The manifest as text; ends with a line that carries the SHA-256 of all that precedes it.
std::string FormatManifest(const BackupHeader& header);

// DATA_LOSS when it is cut off, changed, or lacks a field; FAILED_PRECONDITION for a newer format.
absl::StatusOr<BackupHeader> ParseManifest(std::string_view text);

}  // namespace metal::backup
