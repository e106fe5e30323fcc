// UnpackPipeline: reads the frames that a file list names, checks them, and writes the files
// (restore) or not (verify). The calling thread is the ring thread: it reads the list, submits
// reads of frames, hands them to the codec threads, and writes parts of large files from the
// buffers they were decoded into. Every frame's hash and CRC and every file's CRC is checked.
// Memory is bounded by the number of frame buffers. Threading: one thread; codec threads are its
// own.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/file_list.h"
#include "agent/backup/manifest.h"
#include "agent/backup/memory_budget.h"
#include "agent/backup/target_writer.h"
#include "agent/backup/unpack_job.h"
#include "agent/backup/worker_pool.h"
#include "agent/base/units.h"
#include "agent/observe/progress.h"
#include "agent/uring/buffer_pool.h"
#include "agent/uring/io_engine.h"

namespace metal::backup {

struct UnpackOptions {
  std::string packs_directory;  // <root>/<system>/packs
  std::vector<PackReference> packs;
  size_t threads = 1;
  uint32_t queue_depth = 16;
  base::ByteCount memory{192 << 20};
  // Restore: where files go; empty: verify only.
  std::string target_directory;
  // Restore: called for each directory and tablespace record, before anything inside it comes.
  std::function<absl::Status(const FileListRecord&)> on_directory;
  // Restore: paths that are not written but handed out (global/pg_control); below kBundleBelow
  // bytes.
  std::function<bool(std::string_view path)> captured;
  std::function<absl::Status(const FileEntry&, std::string_view contents)> on_captured;
  // Called for each file whose contents are right; may be empty.
  std::function<absl::Status(const FileEntry&)> on_file;
};

uint32_t UnpackEngineDepth(const UnpackOptions& options);

// What the buffers of these options take, at most options.memory; and the least with which a
// pipeline works.
base::ByteCount UnpackMemory(const UnpackOptions& options);
base::ByteCount UnpackMemoryLeast();

struct UnpackTotals {
  uint64_t files = 0;
  uint64_t bytes = 0;
  uint64_t frames = 0;        // decoded, a frame that was read twice counts twice
  uint64_t stored_bytes = 0;  // of those frames
  uint64_t damaged_frames = 0;
  uint64_t damaged_files = 0;
  std::string first_damage;  // says which frame or file and why
};

class UnpackPipeline {
 public:
  // `share` holds the memory of the options and goes with the pipeline.
  static absl::StatusOr<std::unique_ptr<UnpackPipeline>> Create(
      UnpackOptions options, std::unique_ptr<uring::IoEngine> engine, observe::Progress& progress,
      MemoryShare share = {});
  ~UnpackPipeline();

  // Runs the whole list. Restore: DATA_LOSS/REPOSITORY at the first damage. Verify: damage is
  // counted in the totals; only a damaged list or a failing disk is an error. CANCELLED.
  absl::Status Run(FileListReader& list);

  const UnpackTotals& totals() const { return totals_; }
  std::string_view engine_name() const { return engine_->name(); }

 private:
  UnpackPipeline(UnpackOptions options, std::unique_ptr<uring::IoEngine> engine,
                 observe::Progress& progress);
  bool restoring() const { return !options_.target_directory.empty(); }

  absl::StatusOr<bool> Turn();
  absl::StatusOr<bool> TakeRecord();
  absl::Status TakeExtent();
  absl::Status BeginFile();
  absl::StatusOr<std::shared_ptr<OpenPack>> PackOf(uint32_t index);
  absl::Status StartReads(UnpackJob& job);
  absl::Status DispatchPending();
  void StartRequests();
  absl::Status Wait(absl::Duration timeout);
  absl::Status CompleteRead(UnpackRead& read);
  absl::Status CompleteWrite(UnpackPiece& piece);
  absl::Status TakeDecoded();
  absl::Status HandleDecoded(UnpackJob& job);
  absl::Status ClosePiece(UnpackPiece& piece);
  absl::Status CloseJob(UnpackJob& job);
  absl::Status FinishFile(TargetFile& file);
  absl::Status Damage(TargetFile& file, const std::string& what);
  absl::Status FrameDamage(const UnpackJob& job, const absl::Status& why);
  TargetFile* NewFile();

  const UnpackOptions options_;
  observe::Progress& progress_;
  UnpackTotals totals_;
  std::optional<TargetWriter> target_;

  MemoryShare share_;  // given back after the buffers are gone
  uring::AlignedBuffer memory_;
  std::vector<std::unique_ptr<stream::Decoder>> decoders_;
  std::vector<std::unique_ptr<UnpackJob>> jobs_;
  std::vector<UnpackJob*> free_jobs_;
  UnpackJob* pending_ = nullptr;  // its frame may get more pieces
  std::deque<uring::IoRequest*> waiting_;
  std::deque<std::shared_ptr<OpenPack>> open_packs_;  // newest first, few
  std::deque<uint32_t> open_pack_indexes_;

  std::deque<TargetFile> files_;  // storage
  std::vector<TargetFile*> free_files_;
  TargetFile* current_ = nullptr;  // extents are coming for it
  FileListReader* list_ = nullptr;
  FileListRecord record_;
  bool record_waits_ = false;  // record_ is an extent that found no free job
  bool list_ended_ = false;

  std::vector<WorkItem*> finished_;
  std::vector<uring::IoRequest*> done_;
  // The engine waits for requests in flight when it goes, the workers for running items: both
  // before the buffers.
  std::unique_ptr<uring::IoEngine> engine_;
  std::unique_ptr<WorkerPool> workers_;
};

}  // namespace metal::backup
