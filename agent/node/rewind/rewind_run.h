// One rewind from its checks to the standby that streams. Node owns the term, the operation and the
// faults; this is the sequence.
//
// Order, and what an agent that dies leaves behind:
//   checks, stop, recovery, pg_rewind --dry-run: the data directory is as it was; the server may be
//     down.
//   the target's files are kept in the state directory, then the record, then the sentinel: nothing
//     starts the directory from here on.
//   pg_rewind: dies with the agent. The next run puts back what pg_rewind read and begins again.
//   record "rewound", own configuration, source, record "started", sentinel removed: the next run
//     goes on after pg_rewind.
//   start, verification: the directory is a standby's like any other.
// Threading: on the operation's thread; blocks on both disks, SQL and the network.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/wal_archive.h"
#include "agent/base/status.h"
#include "agent/node/requests.h"
#include "agent/node/rewind/rewind_record.h"
#include "agent/node/steps/role_steps.h"
#include "agent/observe/event_log.h"
#include "agent/pg/control_file.h"
#include "agent/pg/install.h"
#include "agent/pg/replication_source.h"
#include "agent/pg/rewind.h"
#include "agent/pg/rewind_files.h"
#include "agent/pg/session.h"
#include "agent/pg/term_history.h"

namespace metal::node {

// A session on the source; the seam for tests without one.
using RemoteSessionFactory =
    std::function<absl::StatusOr<std::unique_ptr<pg::SqlSession>>(const pg::ReplicationSource&)>;

struct RewindParts {
  RoleStepContext& steps;
  observe::EventLog& events;
  pg::Install& install;
  const std::string& state_dir;
  const std::string& node_id;
  pg::ReplicationSource source;
  pg::SourceIdentifier identify_source;
  RemoteSessionFactory connect_remote;
  // Whether the terms that this node and the source keep are of one history (pg::CheckMayFollow);
  // the session is the node's own, null when the server is down.
  std::function<absl::Status(pg::SqlSession* session)> check_terms;
  backup::WalArchive* archive = nullptr;  // may be null
  // Writes the agent's settings and access rules into the data directory.
  std::function<absl::Status()> install_managed_files;
  // The last chance to refuse, before the first change.
  std::function<absl::Status()> before_change;
  // From now on the directory is another one.
  std::function<void()> on_begun;
  // The directory is whole, but not yet up to record.floor.
  std::function<void(const RewindRecord&)> on_floor;
};

// How a rewind ended: what is for the caller to see.
struct RewindOutcome {
  bool rewound = false;  // false: the node's WAL is a beginning of the source's; it only follows
  bool ran = true;       // false: a dry run on a running server, which pg_rewind would not look at
  pg::RewindReport report;
  base::Lsn floor, replayed;
  base::TimelineId timeline = 0;
  int fetched = 0;  // WAL segments from the archive
};

class RewindRun {
 public:
  explicit RewindRun(RewindParts parts) : parts_(std::move(parts)) {}

  // Looks, and changes nothing but the server's being up when it has to; brings that up again.
  absl::StatusOr<RewindOutcome> DryRun();
  // Errors before pg_rewind changes anything: as before the call, the server started again if it
  // ran. After that, or with a sentinel that cannot be taken back: half_rewound() is true and the
  // directory stays as it is.
  absl::StatusOr<RewindOutcome> Run();
  bool half_rewound() const { return half_rewound_; }

 private:
  absl::Status Step(const std::string& name, const std::function<absl::Status()>& body);

  // ---- checks (rewind_checks.cc) ----
  absl::Status Check();  // AwaitCheckpoint is still due where there is something to rewind
  absl::Status LookAtTarget();
  absl::StatusOr<std::unique_ptr<pg::SqlSession>> ConnectSource();
  absl::Status LookAtSource();
  absl::Status AwaitCheckpoint();
  absl::Status CheckResumable() const;
  // Whether the node's WAL, up to `ours`, has left the source's history.
  absl::StatusOr<bool> HasDiverged(const WalPosition& ours);
  // The same, and that a rewind can find where: two histories on one timeline it does not tell
  // apart. `session` as in check_terms.
  absl::StatusOr<bool> NeedsRewind(const WalPosition& ours, pg::SqlSession* session);
  // Whether pg_rewind finds where histories parted that parted_by says are two (HISTORY_DIVERGED).
  bool IsSeenByRewind(const base::ErrorReason& parted_by, const WalPosition& ours) const;
  absl::StatusOr<WalPosition> LookAtPosition();

  // The source must still have its WAL from the fork on: the rewound node streams from there.
  absl::Status CheckSourceWal(const WalPosition& ours);
  // The same of a server whose own WAL ends at `end`, and that streams from there.
  // FAILED_PRECONDITION (WAL_MISSING): the source has removed that.
  absl::Status CheckNextWal(base::Lsn end);
  // The same of a running standby, once it is seen to stream, or to have replayed all that is here
  // and to have tried in vain to stream more. OK when it is seen at neither for a while.
  absl::Status CheckNotStranded(pg::SqlSession& session);

  // ---- steps ----
  absl::Status Stop();
  absl::Status Recover();
  absl::Status TryPgRewind();
  absl::Status FetchSegment(const std::string& name);
  absl::Status CheckSpace() const;
  // The target's WAL that pg_rewind reads, and from which the recovery begins that follows it.
  pg::WalStretch NeededWal(const WalPosition& ours) const;
  absl::Status Keep(const WalPosition& ours);
  // Writes the sentinel: half_rewound() from then on, and when it may be there after an error.
  absl::Status Mark();
  // Nothing was changed yet: removes the sentinel and the record.
  absl::Status Unmark();
  absl::Status RunForReal();
  // The timelines of the source that the node had too, and where the common part of each ends.
  std::vector<pg::TimelineEnd> SharedTimelines() const;
  absl::Status BecomeStandby();
  absl::Status Follow(const WalPosition& ours);
  // What was received of a timeline beyond where the source left that. `ours`: as far as it was
  // replayed.
  absl::Status CutUnreplayedWal(const WalPosition& ours);
  absl::Status Start();
  absl::Status Verify();
  absl::Status StoreStage(RewindStage stage);
  absl::Status RewindStopped(const WalPosition& ours);
  absl::Status Resume();
  absl::Status RunFresh();
  absl::StatusOr<bool> FollowIfRunning();
  // Whether a server that was told to go over to the source's timeline neither streams nor replays
  // for a while: unreplayed WAL of the old timeline can keep it from the stream.
  absl::StatusOr<bool> StandsStill(pg::SqlSession& session);
  absl::Status StartAgainAfter(const absl::Status& failed);
  pg::PgRewindOptions ProgramOptions(bool dry_run);

  RewindParts parts_;
  std::string program_;
  int major_ = 0;
  bool was_running_ = false, resuming_ = false, half_rewound_ = false;
  pg::ControlFile control_;  // of the target; when resuming, as it was kept
  pg::RewindSource server_;  // the source as it answers SQL
  WalPosition theirs_;       // its place in history
  std::string history_;      // text of its history file
  pg::TermHistory source_terms_;
  std::string conninfo_;
  RewindRecord record_;
  RewindOutcome outcome_;
};

}  // namespace metal::node
