// CloneReceiver: the target's side of the data connections. A thread for each connection reads
// messages, verifies every byte and acknowledges; small files it writes itself. Parts of larger
// files go to the calling thread, the ring thread, which writes them with O_DIRECT from the buffer
// that they were decrypted into. A connection that breaks is opened again, with backoff; the source
// then sends what was not acknowledged. Memory: a fixed number of frame buffers. Threading: Run
// blocks its caller; the connections' threads are its own.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/clone_job.h"
#include "agent/backup/clone_protocol.h"
#include "agent/backup/file_list.h"
#include "agent/backup/target_writer.h"
#include "agent/backup/unpack_job.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/observe/progress.h"
#include "agent/stream/codec.h"
#include "agent/transfer/channel.h"
#include "agent/uring/buffer_pool.h"
#include "agent/uring/io_engine.h"

namespace metal::backup {

struct CloneReceiveOptions {
  transfer::Address source;
  transfer::TlsFiles tls;
  std::string session;
  size_t links = 2;
  uint32_t queue_depth = 16;
  std::string codec = "none";  // of the source's frames
  base::ByteCount memory{192 << 20};
  std::string target_directory;
  // Called on the ring thread for each directory record. Directories that a file needs earlier are
  // made with mode 0700.
  std::function<absl::Status(const FileListRecord&)> on_directory;
  absl::Duration patience = absl::Seconds(60);  // without any connection, or any progress on one
};

struct CloneTotals {
  uint64_t files = 0, bytes = 0;
  uint64_t reconnects = 0;
};

// Requests in flight that an engine for these options must allow.
uint32_t CloneEngineDepth(const CloneReceiveOptions& options);

// Bytes of buffers: the most that help, and the least that do.
base::ByteCount CloneReceiveWanted(size_t links, std::string_view codec);
base::ByteCount CloneReceiveLeast(size_t links, std::string_view codec);

class CloneReceiver {
 public:
  static absl::StatusOr<std::unique_ptr<CloneReceiver>> Create(
      CloneReceiveOptions options, std::unique_ptr<uring::IoEngine> engine,
      observe::Progress& progress, base::Clock& clock);
  ~CloneReceiver();

  // Until every file is written (not synced). The source's failure; UNAVAILABLE when it was not
  // reached for `patience`; RESOURCE_EXHAUSTED/NO_SPACE; CANCELLED.
  absl::StatusOr<CloneEnd> Run();

  const CloneTotals& totals() const { return totals_; }
  std::string_view engine_name() const { return engine_->name(); }

 private:
  using Job = CloneJob;
  using Link = CloneLink;
  // What a connection's thread hands to the ring thread.
  struct Arrival {
    Job* job = nullptr;                   // parts of files to be written, or
    std::vector<FileListRecord> records;  // what they say, or
    std::optional<CloneEnd> end;
  };

  CloneReceiver(CloneReceiveOptions options, std::unique_ptr<uring::IoEngine> engine,
                observe::Progress& progress, base::Clock& clock);

  // ---- ring thread ----
  absl::StatusOr<bool> Turn();
  absl::Status TakeArrivals();
  absl::Status WriteParts(Job& job);
  absl::StatusOr<TargetFile*> FileOf(const ClonePiece& piece);
  absl::Status TakeRecord(const FileListRecord& record);
  absl::Status FinishFile(TargetFile& file);
  absl::Status CompleteWrite(UnpackPiece& piece);
  absl::Status Wait();
  absl::Status Failure();
  void StopLinks();

  // ---- connections' threads ----
  void LinkLoop(Link& link);
  absl::Status ServeOnce(Link& link);
  absl::Status TakeMessage(transfer::Channel& channel, Link& link);
  absl::Status TakeData(transfer::Channel& channel, Link& link,
                        const transfer::Channel::Received& received);
  absl::Status ReadFrame(transfer::Channel& channel, Link& link, uint32_t length, Job& job);
  absl::Status VerifyPieces(const Job& job, uint32_t raw_length) const;
  absl::Status WriteWholeFiles(Job& job);
  absl::Status TakeRecords(const transfer::Channel::Received& received);
  absl::StatusOr<Job*> AcquireJob(transfer::Channel& channel);
  void ReleaseJob(Job* job);
  // True for the first time that this message was verified.
  bool Claim(uint64_t sequence);
  void Deliver(Arrival arrival);
  void Fail(const absl::Status& why);
  bool stopping();

  const CloneReceiveOptions options_;
  observe::Progress& progress_;
  base::Clock& clock_;
  CloneTotals totals_;
  std::optional<TargetWriter> target_;
  uring::AlignedBuffer memory_;
  std::vector<std::unique_ptr<stream::Decoder>> decoders_;  // one for each link
  std::vector<std::unique_ptr<Job>> jobs_;
  std::map<std::string, std::unique_ptr<TargetFile>, std::less<>> open_files_;
  std::deque<uring::IoRequest*> waiting_;
  std::vector<uring::IoRequest*> done_;
  std::optional<CloneEnd> end_;

  base::Mutex mutex_;
  base::CondVar changed_;  // a job is free, or stopping_
  std::vector<Job*> free_jobs_ ABSL_GUARDED_BY(mutex_);
  std::deque<Arrival> arrivals_ ABSL_GUARDED_BY(mutex_);
  bool ring_sleeps_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool all_received_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  uint64_t received_up_to_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<uint64_t> received_beyond_ ABSL_GUARDED_BY(mutex_);
  base::MonotonicTime heard_ ABSL_GUARDED_BY(mutex_);  // last time that the source was there
  uint64_t reconnects_ ABSL_GUARDED_BY(mutex_) = 0;

  std::unique_ptr<uring::IoEngine> engine_;
  std::vector<std::unique_ptr<Link>> links_;
};

}  // namespace metal::backup
