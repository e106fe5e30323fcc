// The file list of a backup (files.zst): one line for each directory, tablespace link, file and
// extent; zstd-compressed and streamed both ways, so its size does not matter. Format:
// agent/docs/repository-format.md.
//   D <path> <mode>                                   directory
//   L <oid> <location>                                tablespace: pg_tblspc/<oid> links to location
//   F <path> <size> <mtime> <mode> <crc32c>           file; its extents follow
//   X <offset> <length> <pack> <pack offset> <stored> <raw> <frame offset>
//   E <files> <directories> <extents> <bytes>         the end
// Extents of a file are in order and cover it exactly: [0, size).
// Threading: a writer or reader is used by one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/fd.h"

namespace metal::backup {

// A part of a file: `length` bytes at `frame_offset` of the decoded frame that lies at
// `pack_offset` of the pack.
struct Extent {
  uint64_t file_offset = 0;
  uint32_t length = 0;
  uint32_t pack = 0;           // index of a `pack` line of the manifest
  uint64_t pack_offset = 0;    // of the frame's header
  uint32_t stored_length = 0;  // frame header and payload
  uint32_t raw_length = 0;     // of the whole decoded frame
  uint32_t frame_offset = 0;   // of this extent's first byte in the decoded frame
  friend bool operator==(const Extent&, const Extent&) = default;
};

struct FileEntry {
  std::string path;  // relative to the data directory
  uint64_t size = 0;
  int64_t mtime = 0;     // seconds since the epoch
  uint32_t mode = 0600;  // permission bits
  uint32_t crc32c = 0;   // of the whole file
  friend bool operator==(const FileEntry&, const FileEntry&) = default;
};

enum class RecordKind : uint8_t { kDirectory, kTablespace, kFile, kExtent, kEnd };

// One line. Which members count depends on `kind`.
struct FileListRecord {
  RecordKind kind = RecordKind::kEnd;
  FileEntry file;           // kFile; kDirectory: path and mode
  uint32_t tablespace = 0;  // kTablespace: OID
  std::string location;     // kTablespace: where the link points
  Extent extent;            // kExtent
  uint64_t files = 0, directories = 0, extents = 0, bytes = 0;  // kEnd
};

void AppendRecord(const FileListRecord& record, std::string& out);  // one line with its newline
// `line` without newline. Members of `record` that the kind does not use are left alone. DATA_LOSS
// for a bad line.
absl::Status ParseRecord(std::string_view line, FileListRecord& record);

struct FileListTotals {
  uint64_t files = 0, directories = 0, extents = 0, bytes = 0;
  uint64_t raw_bytes = 0;  // of the uncompressed list
  std::string sha256;      // of the uncompressed list
};

// Takes note of what a copy holds.
class FileRecorder {
 public:
  virtual ~FileRecorder() = default;
  virtual absl::Status AddDirectory(std::string_view path, uint32_t mode) = 0;
  virtual absl::Status AddTablespace(uint32_t oid, std::string_view location) = 0;
  // A file that is complete, with the extents that cover it.
  virtual absl::Status AddFile(const FileEntry& file, std::span<const Extent> extents) = 0;
};

class FileListWriter final : public FileRecorder {
 public:
  // Creates `path`; it must not exist.
  static absl::StatusOr<std::unique_ptr<FileListWriter>> Create(const std::string& path);
  ~FileListWriter() override;

  absl::Status AddDirectory(std::string_view path, uint32_t mode) override;
  absl::Status AddTablespace(uint32_t oid, std::string_view location) override;
  absl::Status AddFile(const FileEntry& file, std::span<const Extent> extents) override;
  // Writes the end line; the file is durable when this returned OK (its directory entry is the
  // caller's to sync).
  absl::StatusOr<FileListTotals> Finish();

 private:
  struct Stream;
  explicit FileListWriter(std::unique_ptr<Stream> stream);
  absl::Status Append(const FileListRecord& record);

  std::unique_ptr<Stream> stream_;
  FileListRecord scratch_;
  std::string line_;
  FileListTotals totals_;
};

// Gives compressed bytes; 0 at the end.
using ByteSource = std::function<absl::StatusOr<size_t>(std::span<char> out)>;

class FileListReader {
 public:
  // What the manifest says of the list; it is checked at the end.
  struct Expected {
    uint64_t raw_bytes = 0;
    std::string sha256;
    uint32_t pack_count = 0;  // extents must name a pack below this
  };
  static absl::StatusOr<std::unique_ptr<FileListReader>> Open(const std::string& path,
                                                              Expected expected);
  FileListReader(ByteSource source, Expected expected);
  ~FileListReader();

  // Next record; kEnd once, after length, hash, counts and every file's extents were checked.
  // Nothing may be believed for good before kEnd was seen. DATA_LOSS when the list is damaged.
  // REQUIRES: kEnd was not returned yet.
  absl::Status Next(FileListRecord& record);

 private:
  struct Stream;
  absl::StatusOr<std::string_view> NextLine();
  absl::Status CheckSequence(const FileListRecord& record);
  absl::Status CheckEnd(const FileListRecord& record);

  std::unique_ptr<Stream> stream_;
  const Expected expected_;
  uint64_t file_size_ = 0, file_covered_ = 0;  // of the current file
  FileListTotals totals_;
};

}  // namespace metal::backup
