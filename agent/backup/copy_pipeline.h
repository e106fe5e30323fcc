// CopyPipeline: reads a data directory and appends it to packs, as fast as the disk or the codecs
// allow. The calling thread is the ring thread: it walks, opens, submits reads, hands full frames
// to the codec threads, appends encoded frames to packs and writes the file list. A read is issued
// only when a frame buffer is free, so memory is bounded by the number of frame buffers whatever
// the files are. Threading: one thread; codec threads are its own.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/directory_walk.h"
#include "agent/backup/file_list.h"
#include "agent/backup/frame_job.h"
#include "agent/backup/frame_reader.h"
#include "agent/backup/page_recheck.h"
#include "agent/backup/worker_pool.h"
#include "agent/base/throttle.h"
#include "agent/base/units.h"
#include "agent/observe/progress.h"
#include "agent/store/pack_writer.h"
#include "agent/stream/codec.h"
#include "agent/uring/io_engine.h"

namespace metal::backup {

struct CopyOptions {
  std::string data_directory;
  uint32_t page_size = 8192;
  uint32_t segment_blocks = 131072;
  bool check_pages = false;  // REQUIRES: page_size is 8 KiB and data checksums are on
  stream::CodecKind codec = stream::CodecKind::kZstd;
  int level = 1;
  size_t threads = 1;
  uint32_t queue_depth = 16;  // reads of kReadSize in flight
  // Of buffers and encoders together; Create lowers `threads` and sets `frames` to keep it.
  base::ByteCount memory{192 << 20};
  size_t frames = 0;  // frame buffers
  store::PackWriter::Options packs;
  base::Throttle* throttle = nullptr;  // of the reads; null: as fast as it goes
  // Called all the time on the ring thread; an error ends the copy. May be empty.
  std::function<absl::Status()> watch;
};

// Requests in flight that an engine for these options must allow.
uint32_t CopyEngineDepth(const CopyOptions& options);

struct CopyTotals {
  uint64_t frames = 0;
  uint64_t vanished_files = 0;  // dropped between listing and open
  uint64_t shrunk_files = 0;    // truncated while they were read
  uint64_t pages_in_window = 0;
  uint64_t corrupt_page_count = 0;
  std::vector<CorruptPage> corrupt_pages;  // the first kCorruptPagesKept
};

class CopyPipeline {
 public:
  // Errors as PlanMemory. `rechecker` may be null when pages are not checked. References outlive
  // the pipeline.
  static absl::StatusOr<std::unique_ptr<CopyPipeline>> Create(
      CopyOptions options, std::unique_ptr<uring::IoEngine> engine, PageRechecker* rechecker,
      FileListWriter& list, observe::Progress& progress);
  ~CopyPipeline();

  // Copies everything that the walk gives. DATA_LOSS for unreadable bytes, RESOURCE_EXHAUSTED when
  // the repository is full, CANCELLED. After an error the pipeline can only be destroyed.
  absl::Status CopyTree(DirectoryWalk& walk);
  // Adds a file whose contents are in memory, at most 1 MiB.
  absl::Status AddFile(const FileEntry& entry, std::string_view contents);
  // Writes and fsyncs all packs.
  absl::Status Finish();

  const CopyTotals& totals() const { return totals_; }
  const store::PackWriter& packs() const { return packs_; }
  std::string_view engine_name() const { return engine_->name(); }

 private:
  struct FinishPackJob;

  CopyPipeline(CopyOptions options, std::unique_ptr<uring::IoEngine> engine,
               PageRechecker* rechecker, FileListWriter& list, observe::Progress& progress);
  // One turn of the ring thread's loop; false when there is nothing left to wait for.
  absl::StatusOr<bool> Turn();
  absl::Status Drain();
  absl::Status TakeFinished();
  absl::Status FinishFrame(FrameJob& job);
  absl::Status AppendEncoded();
  void StartRequests();
  void StartReads();
  // How long the next read has to wait for the throttle.
  absl::Duration HoldBack();
  absl::Status Wait(absl::Duration timeout);
  std::vector<std::unique_ptr<FrameJob>> MakeJobs(PageRechecker* rechecker);
  std::vector<FrameJob*> FreeJobs() const;

  const CopyOptions options_;
  observe::Progress& progress_;
  CopyTotals totals_;

  uring::AlignedBuffer memory_;  // frame buffers
  std::vector<CodecState> codec_states_;
  std::vector<std::unique_ptr<FrameJob>> jobs_;
  FrameReader reader_;
  std::deque<FrameJob*> encoded_;  // finished by a codec, waiting for staging space
  uint64_t read_bytes_in_flight_ = 0;
  bool held_back_ = false;            // by the throttle, when reads were last started
  uint64_t booked_bytes_ = 0;         // with the throttle, and not read yet
  base::MonotonicTime booked_until_;  // when they may be read

  store::PackWriter packs_;
  std::vector<std::unique_ptr<FinishPackJob>> finish_jobs_;
  std::vector<WorkItem*> finished_;
  std::vector<uring::IoRequest*> done_;

  // The engine waits for requests in flight when it goes, the workers for running items: both
  // before the buffers.
  std::unique_ptr<uring::IoEngine> engine_;
  std::unique_ptr<WorkerPool> workers_;
};

}  // namespace metal::backup
