// FrameReader: the source side of a copy: walks, opens files, cuts them into frames and prepares
// the reads that fill them; when a frame was stored it notes where, and writes a file's record once
// all of its frames are stored. It does no bulk I/O itself: the owner of the engine takes reads,
// submits them and gives them back. Memory: only files with frames under way are kept. Threading:
// the ring thread.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/directory_walk.h"
#include "agent/backup/file_list.h"
#include "agent/backup/frame_job.h"

namespace metal::backup {

// Files below this size share frames.
inline constexpr uint32_t kBundleBelow = 256 << 10;
inline constexpr uint32_t kReadSize = 512 << 10;

// Where a frame was stored.
struct FramePlace {
  uint32_t pack = 0;
  uint64_t offset = 0;
};

class FrameReader {
 public:
  struct Options {
    std::string data_directory;
    uint32_t page_size = 8192;
    uint32_t segment_blocks = 131072;
    bool check_pages = false;
  };
  // `jobs` are all free frames; they and `list` outlive this.
  FrameReader(Options options, std::vector<FrameJob*> jobs, FileRecorder& list);

  // Starts to copy what the walk gives. REQUIRES: idle().
  void Begin(DirectoryWalk& walk);
  // Prepares reads for one more frame, or looks at one more entry; false when it must wait for a
  // free frame or all is read.
  absl::StatusOr<bool> FillOne();
  // Adds a file whose contents are in memory, at most 1 MiB. REQUIRES: idle() and every frame is
  // free.
  absl::Status AddFile(const FileEntry& entry, std::string_view contents);

  // Next read to submit, or null. It is the engine's until Complete.
  FrameRead* TakeRead();
  size_t waiting_reads() const { return waiting_reads_.size(); }
  // Bytes of the one that TakeRead gives; 0: none.
  uint64_t next_read_length() const {
    return waiting_reads_.empty() ? 0 : waiting_reads_.front()->request.length;
  }
  // Takes a finished read; a short one goes on. DATA_LOSS names the file and block that cannot be
  // read.
  absl::Status Complete(FrameRead& read);
  // Next frame that is full and goes to a codec thread, or null.
  FrameJob* TakeReady();
  // Takes back a frame that was stored at `place` (or was empty); answers the bytes of files that
  // it accounts for.
  absl::StatusOr<uint64_t> Close(FrameJob& job, FramePlace place);

  // Everything was read and handed out.
  bool idle() const;
  uint64_t vanished_files() const { return vanished_files_; }
  uint64_t shrunk_files() const { return shrunk_files_; }

 private:
  absl::StatusOr<bool> NextFile();
  absl::Status OpenFile(const WalkEntry& entry);
  bool FillLarge();
  bool FillBundle();
  void AddPiece(FrameJob& job, SourceFile& file, uint64_t offset, uint32_t length);
  void AddReads(FrameJob& job, uint32_t piece);
  void SealBundle();
  void DispatchWhenReady(FrameJob& job);
  absl::Status CloseFrameOf(SourceFile& file);
  absl::Status EmitFile(SourceFile& file);
  FrameJob* TakeJob();
  SourceFile* NewFile();

  const Options options_;
  FileRecorder& list_;
  std::vector<FrameJob*> free_jobs_;
  std::deque<FrameRead*> waiting_reads_;
  std::deque<FrameJob*> ready_;
  std::deque<SourceFile> files_;  // storage
  std::vector<SourceFile*> free_files_;
  SourceFile* large_ = nullptr;  // being split into frames
  SourceFile* small_ = nullptr;  // waiting for room in a bundle
  FrameJob* bundle_ = nullptr;   // small files are still added
  DirectoryWalk* walk_ = nullptr;
  bool walk_ended_ = true;
  WalkEntry walk_entry_;
  uint64_t vanished_files_ = 0, shrunk_files_ = 0;
};

}  // namespace metal::backup
