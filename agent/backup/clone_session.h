// CloneSession: the source's side of one clone, from pg_backup_start to the last acknowledged byte.
// Begin opens the backup; then a thread of its own, the ring thread, reads the data directory with
// O_DIRECT into a fixed number of frame buffers and hands them to the sender (clone_sender.h). The
// backup stays open while no connection is there for as long as the sender is patient. Threading:
// Begin blocks its caller; Serve runs on the connections' threads; Cancel on any.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/backup.h"
#include "agent/backup/clone_protocol.h"
#include "agent/backup/clone_sender.h"
#include "agent/backup/context.h"
#include "agent/backup/directory_walk.h"
#include "agent/backup/frame_reader.h"
#include "agent/backup/memory_budget.h"
#include "agent/backup/page_recheck.h"
#include "agent/backup/server_watch.h"
#include "agent/base/config.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/observe/event_log.h"
#include "agent/pg/session.h"
#include "agent/uring/buffer_pool.h"
#include "agent/uring/io_engine.h"

namespace metal::backup {

// What serving a clone needs; everything outlives the sessions.
struct CloneSourceParts {
  const base::AgentConfig& config;
  base::Clock& clock;
  observe::EventLog* events = nullptr;  // may be null
  SourceFactory open_source = {};
  pg::SessionFactory connect = {};  // to wait until a standby has replayed a position
  EngineFactory make_engine = uring::MakeEngine;
  // Of all operations together; null: config.backup_memory alone.
  MemoryBudget* memory = nullptr;
  // Of all that read the data directory together; null: the request's limit alone.
  base::Throttle* throttle = nullptr;
};

// Bytes that a copy of the data directory would take now, by tablespace OID; 0: outside of them.
absl::StatusOr<std::map<uint32_t, uint64_t>> CountCloneBytes(const WalkOptions& walk);

class CloneSession {
 public:
  // Takes its share of parts.memory, which may wait, opens the backup and starts to read. Errors as
  // BackupSession::Start. `cancelled` is polled while it waits, and while the checkpoint runs.
  static absl::StatusOr<std::shared_ptr<CloneSession>> Begin(const CloneSourceParts& parts,
                                                             const CloneBegin& request,
                                                             std::string target,
                                                             std::function<bool()> cancelled);
  // Cancels and waits for the ring thread. REQUIRES: no Serve runs.
  ~CloneSession();

  const ClonePlan& plan() const { return plan_; }
  // Serves one data connection until it or the clone ends.
  absl::Status Serve(transfer::Channel& channel) { return sender_.Serve(channel); }
  void Cancel(const absl::Status& why) { sender_.Fail(why); }
  // The ring thread has ended; the backup is closed.
  bool ended() const { return ended_.load(); }
  // How long ago; 0 while it runs.
  absl::Duration ended_for() const;

 private:
  class Recorder;

  CloneSession(const CloneSourceParts& parts, const CloneBegin& request, std::string target);
  absl::Status Open(std::function<bool()> cancelled);
  absl::Status AwaitReplay(const std::function<bool()>& cancelled);
  absl::Status Prepare(const SourceStart& start);
  absl::Status MakeEncoders();
  absl::Status TakeMemory(const std::function<bool()>& cancelled);
  void MakeFrames(std::vector<FrameJob*>& free_jobs);
  absl::Status MakeReader(const SourceStart& start);
  void Run();
  absl::Status Copy();
  absl::StatusOr<bool> Turn();
  absl::Status Drain();
  absl::Status CloseAcknowledged();
  absl::Status FillFrames(bool& more);
  void SubmitReady();
  void FlushRecords();
  void StartReads();
  absl::Status Wait(absl::Duration timeout);
  absl::Status SendEnd();
  void WakeRing();
  void Emit(observe::Severity severity, std::string type, std::string message);

  const CloneSourceParts& parts_;
  const CloneBegin request_;
  const std::string target_;
  ClonePlan plan_;
  bool from_standby_ = false;
  WalkOptions walk_options_;
  std::optional<ServerWatch> server_watch_;
  base::Mutex wake_mutex_;                   // held where the engine goes, and by those who wake it
  std::unique_ptr<uring::IoEngine> engine_;  // of the ring thread, which alone makes and ends it
  std::unique_ptr<BackupSource> source_;
  std::unique_ptr<PageRechecker> rechecker_;
  MemoryShare share_;  // of memory_
  size_t frames_ = 0, encoded_size_ = 0;
  uring::AlignedBuffer memory_;
  std::vector<CodecState> states_;
  std::vector<std::unique_ptr<FrameJob>> jobs_;
  std::unique_ptr<Recorder> recorder_;
  CloneSender sender_;
  std::unique_ptr<FrameReader> reader_;
  uint64_t read_bytes_in_flight_ = 0;
  uint64_t bytes_ = 0;
  std::vector<CloneOutgoingPtr> acknowledged_;
  std::vector<uring::IoRequest*> done_;
  std::atomic<bool> ended_{false};
  std::atomic<int64_t> ended_at_ns_{0};  // on the monotonic clock
  base::Thread thread_;
};

}  // namespace metal::backup
