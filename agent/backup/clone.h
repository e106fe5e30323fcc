// Clone: makes this node's data directory a copy of another node's, over the network, without a
// stop on the way. The target drives: Look asks the source who it is and checks everything that can
// be checked without changing anything; Open has the source begin its backup; Copy removes what is
// to be replaced, receives and writes the files, and finishes the directory: configuration → one
// syncfs per filesystem → global/pg_control → sentinel removed. Until then the directory carries
// the sentinel of a restore, so that no server starts on it and the next clone or restore may clean
// it up. Threading: one thread, which becomes the ring thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/clone_protocol.h"
#include "agent/backup/context.h"
#include "agent/backup/memory_budget.h"
#include "agent/backup/restore_target.h"
#include "agent/pg/data_directory.h"
#include "agent/transfer/channel.h"

namespace metal::backup {

struct CloneRequest {
  transfer::Address source;  // of its transfer listener
  transfer::TlsFiles tls;
  std::string node_id;           // of this node
  std::string target_directory;  // absolute
  std::string wal_directory;     // pg_wal becomes a link to it; empty: inside the target
  int postgres_major = 0;        // of this node's programs
  bool replace = false;          // what is there may go, if it is of the source's cluster
  std::map<uint32_t, std::string> tablespace_mapping;  // OID → location; others stay where they are
  uint64_t rate_limit = 0;                             // bytes per second; 0: none
  std::string codec = "none";                          // none, lz4, zstd
  size_t links = 2;                                    // data connections
  absl::Duration patience = absl::Seconds(60);         // for a source that is not reached
};

struct CloneReport {
  std::string source_node;
  uint64_t files = 0, bytes = 0, reconnects = 0;
  absl::Duration elapsed;  // of the copy
  absl::Duration finish;   // the part of it after the last byte: settings, sync, control file
  std::string io_engine;
  base::Lsn start_lsn, stop_lsn;
  base::TimelineId timeline = 0;
};

class Clone {
 public:
  Clone(CloneRequest request, OperationContext context);

  // FAILED_PRECONDITION (CLONE_SOURCE): the source is this node, holds another cluster, or another
  // major version; (RESTORE_TARGET, DATA_DIRECTORY_NOT_EMPTY): what is here may not go;
  // RESOURCE_EXHAUSTED (NO_SPACE); UNAVAILABLE: the source was not reached.
  absl::Status Look();
  const CloneWelcome& source() const { return welcome_; }
  // The directory holds something that Copy will remove.
  bool replaces() const { return replaces_; }

  // Takes the buffers' share of context.memory, which may wait. Then the source begins its backup,
  // once it has replayed `replay_lsn` (0: at once); the session waits for 10 minutes. REQUIRES:
  // Look.
  absl::Status Open(base::Lsn replay_lsn);
  const ClonePlan& plan() const { return plan_; }

  // REQUIRES: Open, and no server runs on the directory. `configure` writes the node's own settings
  // into the complete copy. After an error that came after the removal began the directory carries
  // the sentinel: emptied() tells.
  absl::StatusOr<CloneReport> Copy(const std::function<absl::Status()>& configure);
  bool emptied() const { return emptied_; }

  // Tells the source that nobody will come, so that it need not keep its backup open. Best effort.
  void Abandon(const absl::Status& why);

 private:
  absl::Status Lost(const absl::Status& status) const;
  absl::StatusOr<std::unique_ptr<transfer::Channel>> Greet();
  absl::StatusOr<transfer::Channel::Received> Hear(transfer::Channel& channel, CloneMessage wanted);
  absl::Status CheckSource() const;
  absl::Status TakeMemory();
  absl::Status CheckExisting();
  absl::StatusOr<RestoreTarget::Options> TargetOptions(
      const std::map<uint32_t, std::string>& tablespaces);
  absl::StatusOr<RestoreNotes> NotesOfExisting() const;
  absl::StatusOr<std::map<uint64_t, uint64_t>> BytesToFree(const RestoreNotes& notes) const;
  absl::Status MarkExisting(const RestoreNotes& notes) const;
  void UnmarkExisting(const RestoreNotes& notes) const;
  absl::Status RemoveExisting();
  absl::StatusOr<CloneEnd> Receive();
  absl::Status MakeFixedPlaces();
  absl::Status MakeDirectory(const FileListRecord& record);
  absl::Status WriteLabels(const CloneEnd& end);
  absl::Status Complete(const CloneEnd& end);

  const CloneRequest request_;
  const OperationContext context_;
  CloneWelcome welcome_;
  ClonePlan plan_;
  pg::DataDirectory existing_;
  uint32_t existing_catalog_ = 0;  // catalog version of the cluster that is replaced
  bool replaces_ = false;
  bool emptied_ = false;
  std::map<uint32_t, std::string> locations_;  // of tablespaces in the copy
  std::optional<RestoreTarget> target_;
  MemoryShare memory_;  // from Open until the files are written
  CloneReport report_;
};

}  // namespace metal::backup
