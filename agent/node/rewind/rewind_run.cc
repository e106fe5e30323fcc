#include "agent/node/rewind/rewind_run.h"

#include <algorithm>
#include <map>
#include <utility>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/rewind_reasons.h"
#include "agent/base/status.h"
#include "agent/node/emit.h"
#include "agent/node/rewind/ancestry.h"
#include "agent/node/steps/source_steps.h"
#include "agent/pg/data_directory.h"
#include "agent/pg/replication.h"
#include "agent/pg/rewind_files.h"
#include "agent/pg/wal_cut.h"
#include "agent/pg/wal_record.h"

namespace metal::node {
namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kStop = absl::Seconds(60);
constexpr absl::Duration kStopByForce = absl::Seconds(15);
constexpr absl::Duration kConnectPatience = absl::Seconds(30);
constexpr absl::Duration kNoProgress = absl::Minutes(2);
constexpr absl::Duration kPoll = absl::Milliseconds(100);
constexpr absl::Duration kLookAtSource = absl::Seconds(2);
constexpr absl::Duration kStreamPatience = absl::Seconds(5);
constexpr base::ByteCount kSpareRoom{64 * base::kMiB};
constexpr int kMostFetched = 4096;

pg::StopOptions StopSurely() {
  pg::StopOptions stop;
  stop.mode = pg::StopMode::kFast;
  stop.timeout = kStop;
  stop.escalate_to = pg::StopMode::kImmediate;
  stop.escalation_timeout = kStopByForce;
  return stop;
}

absl::StatusOr<base::ByteCount> FreeSpace(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(const pg::DataDirectory directory, pg::InspectDataDirectory(path));
  return directory.data_free;
}

}  // namespace

absl::Status RewindRun::Step(const std::string& name, const std::function<absl::Status()>& body) {
  parts_.steps.progress.BeginPhase(name);
  const base::MonotonicTime start = parts_.steps.clock.Monotonic();
  const absl::Status done = body();
  const absl::Duration took = parts_.steps.clock.Monotonic() - start;
  std::map<std::string, std::string> attributes = {
      {"step", name}, {"seconds", fmt::format("{:.3f}", absl::ToDoubleSeconds(took))}};
  const std::string error(done.message());
  if (!done.ok()) attributes["error"] = error;
  Emit(parts_.events, done.ok() ? observe::Severity::kInfo : observe::Severity::kWarning,
       "rewind.step", "postgres",
       fmt::format("{}: {}{}", name, absl::FormatDuration(absl::Trunc(took, absl::Milliseconds(1))),
                   done.ok() ? "" : ", failed: " + error),
       std::move(attributes));
  return base::Annotate(done, name);
}

absl::StatusOr<RewindOutcome> RewindRun::DryRun() {
  METAL_RETURN_IF_ERROR(Step("checking", [this] { return Check(); }));
  if (resuming_) {
    outcome_.rewound = true;
    outcome_.ran = false;
    return outcome_;
  }
  WalPosition ours;
  std::unique_ptr<pg::SqlSession> session;
  if (was_running_) {
    METAL_ASSIGN_OR_RETURN(session, ConnectPatiently(parts_.steps, kConnectPatience));
    METAL_ASSIGN_OR_RETURN(ours, ReadPosition(parts_.steps, *session));
  } else {
    METAL_ASSIGN_OR_RETURN(ours, LookAtPosition());
  }
  outcome_.timeline = theirs_.timeline;
  METAL_ASSIGN_OR_RETURN(outcome_.rewound, NeedsRewind(ours, session.get()));
  if (outcome_.rewound) {
    METAL_RETURN_IF_ERROR(AwaitCheckpoint());
    METAL_RETURN_IF_ERROR(CheckSourceWal(ours));
  } else if (session != nullptr) {
    METAL_RETURN_IF_ERROR(CheckNotStranded(*session));
  }
  outcome_.ran = !was_running_ && control_.clean();
  if (!outcome_.rewound || !outcome_.ran) return outcome_;
  METAL_RETURN_IF_ERROR(Step("trying pg_rewind", [this] { return TryPgRewind(); }));
  METAL_RETURN_IF_ERROR(CheckSpace());
  outcome_.rewound = outcome_.report.required;
  return outcome_;
}

absl::StatusOr<RewindOutcome> RewindRun::Run() {
  METAL_RETURN_IF_ERROR(Step("checking", [this] { return Check(); }));
  METAL_RETURN_IF_ERROR(AwaitCheckpoint());
  outcome_.timeline = theirs_.timeline;
  if (!server_.slot_exists) parts_.source.slot.clear();
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.checked"));
  METAL_RETURN_IF_ERROR(resuming_ ? Resume() : RunFresh());
  METAL_RETURN_IF_ERROR(Step("verifying", [this] { return Verify(); }));
  return outcome_;
}

absl::Status RewindRun::RunFresh() {
  METAL_ASSIGN_OR_RETURN(const bool follows, FollowIfRunning());
  if (follows) return absl::OkStatus();
  WalPosition ours;
  const auto until_whole = [&]() -> absl::Status {
    METAL_RETURN_IF_ERROR(Step("stopping", [this] { return Stop(); }));
    METAL_RETURN_IF_ERROR(Recover());
    METAL_ASSIGN_OR_RETURN(ours, LookAtPosition());
    METAL_ASSIGN_OR_RETURN(const bool diverged, NeedsRewind(ours, nullptr));
    if (!diverged) return absl::OkStatus();
    return parts_.steps.supervisor.WithServerStopped("rewind", [&] { return RewindStopped(ours); });
  };
  if (const absl::Status done = until_whole(); !done.ok()) return StartAgainAfter(done);
  if (!outcome_.rewound) METAL_RETURN_IF_ERROR(Step("following", [&] { return Follow(ours); }));
  return Step("starting", [this] { return Start(); });
}

// True: the server runs, its WAL is a beginning of the source's, and it follows that now. One that
// does not answer, or does not get on, is stopped to be looked at.
absl::StatusOr<bool> RewindRun::FollowIfRunning() {
  std::unique_ptr<pg::SqlSession> session;
  WalPosition ours;
  bool diverged = true;
  if (was_running_) {
    auto connected = ConnectPatiently(parts_.steps, kConnectPatience);
    if (!connected.ok() && !absl::IsUnavailable(connected.status()) &&
        !absl::IsDeadlineExceeded(connected.status())) {
      return connected.status();
    }
    if (connected.ok()) {
      session = *std::move(connected);
      METAL_ASSIGN_OR_RETURN(ours, ReadPosition(parts_.steps, *session));
      METAL_ASSIGN_OR_RETURN(diverged, NeedsRewind(ours, session.get()));
    }
  }
  METAL_RETURN_IF_ERROR(parts_.before_change());
  if (diverged) return false;
  METAL_RETURN_IF_ERROR(
      Step("following", [&] { return FollowSource(parts_.steps, session.get(), parts_.source); }));
  if (ours.timeline == theirs_.timeline) return true;
  METAL_ASSIGN_OR_RETURN(const bool stuck, StandsStill(*session));
  return !stuck;
}

// From a minor version of 17 on a receiver that asks for too much waits and tries again, and the
// startup process has no wait of its own to be told by.
absl::StatusOr<bool> RewindRun::StandsStill(pg::SqlSession& session) {
  std::optional<base::Lsn> first;
  base::Lsn last;
  const absl::Status streams =
      PollUntil(parts_.steps, kStreamPatience, "it does not stream", [&]() -> absl::StatusOr<bool> {
        METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(session, kQuery));
        METAL_ASSIGN_OR_RETURN(const auto receiver, pg::QueryReceiver(session, kQuery));
        last = state.replayed;
        if (!first) first = last;
        return receiver && receiver->status == "streaming";
      });
  if (streams.ok()) return false;
  if (!absl::IsDeadlineExceeded(streams)) return streams;
  return first && last == *first;
}

// A refusal leaves the node as it was found.
absl::Status RewindRun::StartAgainAfter(const absl::Status& failed) {
  if (half_rewound_ || !was_running_ || outcome_.rewound) return failed;
  const absl::Status started = Start();
  if (started.ok()) return failed;
  return base::Annotate(failed, fmt::format("the server could not be started again ({})",
                                            std::string(started.message())));
}

absl::Status RewindRun::Stop() {
  METAL_RETURN_IF_ERROR(
      parts_.steps.supervisor.Stop(StopSurely(), &parts_.steps.progress).status());
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.stopped"));
  METAL_ASSIGN_OR_RETURN(control_, pg::ReadControlFile(parts_.steps.data_dir));
  return absl::OkStatus();
}

// pg_rewind could do it with `postgres --single`, but not in a dry run, not on a standby, and out
// of the supervisor's sight. As a standby that follows nobody the server replays what it has and
// makes no history of its own.
absl::Status RewindRun::Recover() {
  if (control_.clean()) return absl::OkStatus();
  const absl::Status recovered =
      Step("recovering a server that was not shut down", [this]() -> absl::Status {
        METAL_RETURN_IF_ERROR(ClearSourcesOffline(parts_.steps.data_dir));
        METAL_RETURN_IF_ERROR(Start());
        METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.recovered"));
        return Stop();
      });
  METAL_RETURN_IF_ERROR(recovered);
  if (control_.clean()) return absl::OkStatus();
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "pg_control says \"{}\" after a start and a stop. HINT: see {}",
                  pg::ControlStateName(control_.state), parts_.steps.supervisor.log_path()),
      {"REWIND_REFUSED", {}});
}

pg::PgRewindOptions RewindRun::ProgramOptions(bool dry_run) {
  pg::PgRewindOptions options;
  options.program = program_;
  options.data_dir = parts_.steps.data_dir;
  options.conninfo = conninfo_;
  options.dry_run = dry_run;
  options.cancelled = [this] { return parts_.steps.progress.cancelled(); };
  return options;
}

// WAL that is missing here may be in the archive: each try names the next segment.
absl::Status RewindRun::TryPgRewind() {
  std::string last;
  while (true) {
    const absl::Status tried = pg::RunPgRewind(ProgramOptions(true), outcome_.report);
    const auto reason = base::GetReason(tried);
    if (tried.ok() || !reason || reason->reason != "WAL_MISSING") return tried;
    const std::string missing = reason->metadata.at("first_missing");
    if (missing == last || parts_.archive == nullptr || outcome_.fetched >= kMostFetched) {
      return tried;
    }
    last = missing;
    if (const absl::Status fetched = FetchSegment(missing); !fetched.ok()) {
      return base::Annotate(
          tried, fmt::format("the archive cannot help ({})", std::string(fetched.message())));
    }
    ++outcome_.fetched;
  }
}

absl::Status RewindRun::FetchSegment(const std::string& name) {
  return pg::StoreSegment(parts_.steps.data_dir, name, [&](const pg::SegmentSink& sink) {
    return parts_.archive->Fetch(control_.system_identifier, name, sink).status();
  });
}

absl::Status RewindRun::CheckSpace() const {
  METAL_ASSIGN_OR_RETURN(const base::ByteCount free, FreeSpace(parts_.steps.data_dir));
  const base::ByteCount needed = outcome_.report.to_copy + kSpareRoom;
  if (free >= needed) return absl::OkStatus();
  return base::WithReason(
      base::Error(absl::StatusCode::kResourceExhausted,
                  "the rewind copies up to {}, the disk of {} has {} free. HINT: free space on it",
                  outcome_.report.to_copy.ToString(), parts_.steps.data_dir, free.ToString()),
      {"NO_SPACE", {{"path", parts_.steps.data_dir}}});
}

pg::WalStretch RewindRun::NeededWal(const WalPosition& ours) const {
  const pg::RewindReport& report = outcome_.report;
  const auto redo = pg::ReadCheckpointRedo(parts_.steps.data_dir,
                                           {report.checkpoint_timeline, report.checkpoint,
                                            control_.wal_segment_size, control_.wal_block_size});
  // Where it cannot be read, all that is there is kept.
  return {redo.ok() ? std::min(*redo, report.checkpoint) : base::Lsn(), ours.received};
}

absl::Status RewindRun::Keep(const WalPosition& ours) {
  const Fork fork = FindFork(ours, theirs_);
  const base::Lsn pending = record_.stage == RewindStage::kStarted
                                ? std::min(record_.floor, server_.current)
                                : base::Lsn();
  record_ = {};
  record_.source = fmt::format("{}:{}", parts_.source.host, parts_.source.port);
  record_.system_identifier = control_.system_identifier;
  record_.source_timeline = theirs_.timeline;
  record_.source_history = theirs_.history;
  record_.fork = fork;
  if (!source_terms_.empty()) {
    const observe::TermHistoryEntry& last = source_terms_.back();
    record_.source_term = {.term = last.term, .node_id = last.node_id, .start_lsn = last.start_lsn};
  }
  record_.floor = std::max(std::min(ours.received, fork.lsn), pending);
  METAL_ASSIGN_OR_RETURN(pg::KeptWal wal, pg::FindRewindWal(parts_.steps.data_dir, NeededWal(ours),
                                                            control_.wal_segment_size));
  METAL_ASSIGN_OR_RETURN(const base::ByteCount free, FreeSpace(parts_.state_dir));
  record_.repeatable = free >= wal.bytes + kSpareRoom;
  if (!record_.repeatable) {
    Emit(
        parts_.events, observe::Severity::kWarning, "rewind.not_repeatable", "postgres",
        fmt::format("{} has no room for the {} of WAL that pg_rewind reads: once begun, the rewind "
                    "cannot be repeated",
                    parts_.state_dir, wal.bytes.ToString()));
    wal.files.clear();
  }
  METAL_RETURN_IF_ERROR(
      pg::KeepForRewind(parts_.steps.data_dir, wal, RewindDirectory(parts_.state_dir)));
  return StoreRewindRecord(parts_.state_dir, record_);
}

absl::Status RewindRun::RewindStopped(const WalPosition& ours) {
  METAL_RETURN_IF_ERROR(CheckSourceWal(ours));
  METAL_RETURN_IF_ERROR(Step("trying pg_rewind", [this] { return TryPgRewind(); }));
  if (!outcome_.report.required) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(CheckSpace());
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.tried"));
  METAL_RETURN_IF_ERROR(Step("keeping files", [&] { return Keep(ours); }));
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.kept"));
  METAL_RETURN_IF_ERROR(parts_.steps.progress.CheckCancelled());
  METAL_RETURN_IF_ERROR(Mark());
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.sentinel"));
  METAL_RETURN_IF_ERROR(Step("rewinding", [this] { return RunForReal(); }));
  return Step("becoming a standby", [this] { return BecomeStandby(); });
}

absl::Status RewindRun::Mark() {
  const std::string& data_dir = parts_.steps.data_dir;
  const absl::Status marked = pg::WriteRewindSentinel(data_dir);
  if (marked.ok()) {
    half_rewound_ = true;
    parts_.on_begun();
    return absl::OkStatus();
  }
  // It may be there all the same, and only its sync have failed.
  const auto left = base::Exists(base::JoinPath(data_dir, pg::kRewindSentinel));
  half_rewound_ = !left.ok() || *left;
  const absl::Status taken_back = half_rewound_ ? Unmark() : RemoveRewindRecord(parts_.state_dir);
  if (taken_back.ok()) return marked;
  return base::Annotate(marked, fmt::format("it cannot be taken back either ({})",
                                            std::string(taken_back.message())));
}

absl::Status RewindRun::Unmark() {
  METAL_RETURN_IF_ERROR(pg::RemoveRewindSentinel(parts_.steps.data_dir));
  half_rewound_ = false;
  return RemoveRewindRecord(parts_.state_dir);
}

absl::Status RewindRun::Resume() {
  half_rewound_ = true;
  METAL_RETURN_IF_ERROR(parts_.before_change());
  parts_.on_begun();
  const auto go_on = [this]() -> absl::Status {
    if (record_.stage == RewindStage::kRunning) {
      METAL_RETURN_IF_ERROR(Step("putting back WAL", [this] {
        return pg::PutBackWal(RewindDirectory(parts_.state_dir), parts_.steps.data_dir);
      }));
      METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.put_back"));
      METAL_RETURN_IF_ERROR(Step("trying pg_rewind", [this] { return TryPgRewind(); }));
      METAL_RETURN_IF_ERROR(Step("rewinding", [this] { return RunForReal(); }));
    }
    return Step("becoming a standby", [this] { return BecomeStandby(); });
  };
  METAL_RETURN_IF_ERROR(parts_.steps.supervisor.WithServerStopped("rewind", go_on));
  return Step("starting", [this] { return Start(); });
}

absl::Status RewindRun::RunForReal() {
  pg::PgRewindOptions options = ProgramOptions(false);
  observe::Progress& progress = parts_.steps.progress;
  options.on_step = [&](const std::string& step) { progress.BeginPhase("rewinding: " + step); };
  absl::Status broken;
  options.on_progress = [&](base::ByteCount done, base::ByteCount total) {
    progress.SetTotal(total.value);
    progress.SetDone(done.value);
    if (broken.ok()) broken = base::FaultPoint("rewind.copying");
  };
  absl::Status ran = pg::RunPgRewind(options, outcome_.report);
  if (ran.ok()) ran = broken;
  if (ran.ok() && !outcome_.report.finished) {
    ran = absl::InternalError("pg_rewind ended without having done anything");
  }
  if (!ran.ok() && !outcome_.report.began && !resuming_) METAL_RETURN_IF_ERROR(Unmark());
  METAL_RETURN_IF_ERROR(ran);
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.rewound"));
  return StoreStage(RewindStage::kRewound);
}

absl::Status RewindRun::StoreStage(RewindStage stage) {
  record_.stage = stage;
  return StoreRewindRecord(parts_.state_dir, record_);
}

std::vector<pg::TimelineEnd> RewindRun::SharedTimelines() const {
  std::vector<pg::TimelineEnd> shared;
  for (const TimelineSwitch& ended : theirs_.history) {
    pg::TimelineEnd end{ended.timeline, ended.switch_lsn};
    if (record_.fork && end.timeline > record_.fork->timeline) break;
    if (record_.fork && end.timeline == record_.fork->timeline) {
      end.end = std::min(end.end, record_.fork->lsn);
    }
    shared.push_back(end);
  }
  return shared;
}

absl::Status RewindRun::BecomeStandby() {
  const std::string& data_dir = parts_.steps.data_dir;
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.noted"));
  METAL_RETURN_IF_ERROR(pg::PutBackSharedWal(RewindDirectory(parts_.state_dir), data_dir,
                                             SharedTimelines(), control_.wal_segment_size)
                            .status());
  METAL_RETURN_IF_ERROR(pg::PutBackConfiguration(RewindDirectory(parts_.state_dir), data_dir));
  METAL_RETURN_IF_ERROR(parts_.install_managed_files());
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.configured"));
  // Until it is past its floor it must not count as a synchronous standby.
  pg::ReplicationSource uncounted = parts_.source;
  uncounted.application_name = pg::UncountedName(parts_.node_id);
  METAL_RETURN_IF_ERROR(FollowSource(parts_.steps, nullptr, uncounted));
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control, pg::ReadControlFile(data_dir));
  record_.floor = std::max(record_.floor, control.min_recovery);
  METAL_RETURN_IF_ERROR(StoreStage(RewindStage::kStarted));
  parts_.on_floor(record_);
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.ready"));
  METAL_RETURN_IF_ERROR(pg::RemoveRewindSentinel(data_dir));
  half_rewound_ = false;
  outcome_.rewound = true;
  outcome_.floor = record_.floor;
  return base::FaultPoint("rewind.whole");
}

// The history makes the server go over to the source's timeline where that began. WAL of the old
// one that lies here, and was never replayed, would keep it from there.
absl::Status RewindRun::Follow(const WalPosition& ours) {
  METAL_RETURN_IF_ERROR(
      pg::WriteTimelineHistory(parts_.steps.data_dir, theirs_.timeline, history_));
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.history_written"));
  const auto cut = [&] { return CutUnreplayedWal(ours); };
  METAL_RETURN_IF_ERROR(parts_.steps.supervisor.WithServerStopped("rewind", cut));
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.wal_cut"));
  return FollowSource(parts_.steps, nullptr, parts_.source);
}

absl::Status RewindRun::CutUnreplayedWal(const WalPosition& ours) {
  for (const TimelineSwitch& ended : theirs_.history) {
    if (ended.timeline < ours.timeline) continue;
    METAL_ASSIGN_OR_RETURN(const std::vector<std::string> cut,
                           pg::CutWal(parts_.steps.data_dir, ended.timeline, ended.switch_lsn,
                                      control_.wal_segment_size));
    if (cut.empty()) continue;
    Emit(parts_.events, observe::Severity::kInfo, "rewind.wal_cut", "postgres",
         fmt::format("the source left timeline {} at {}: WAL received beyond that was taken away, "
                     "from {} on",
                     ended.timeline, ended.switch_lsn.ToString(), cut.front()),
         {{"timeline", fmt::format("{}", ended.timeline)},
          {"lsn", ended.switch_lsn.ToString()},
          {"first_segment", cut.front()},
          {"segments", fmt::format("{}", cut.size())}});
  }
  return absl::OkStatus();
}

absl::Status RewindRun::Start() {
  pg::StartOptions start;
  start.as_standby = true;
  start.progress = &parts_.steps.progress;
  start.prepare = [this]() -> absl::Status {
    if (parts_.steps.may_launch) METAL_RETURN_IF_ERROR(parts_.steps.may_launch());
    return parts_.install_managed_files();
  };
  return parts_.steps.supervisor.Start(start).status();
}

absl::Status RewindRun::Verify() {
  METAL_RETURN_IF_ERROR(base::FaultPoint("rewind.started"));
  METAL_ASSIGN_OR_RETURN(const auto session, ConnectPatiently(parts_.steps, kConnectPatience));
  base::MonotonicTime moved = parts_.steps.clock.Monotonic(), looked = moved;
  std::string receiver_status;
  while (true) {
    METAL_ASSIGN_OR_RETURN(const pg::ServerState state, pg::QueryServerState(*session, kQuery));
    if (!state.in_recovery) {
      return absl::FailedPreconditionError("the server left recovery. HINT: begin a higher term");
    }
    METAL_ASSIGN_OR_RETURN(const auto receiver, pg::QueryReceiver(*session, kQuery));
    receiver_status = receiver ? receiver->status : "none";
    if (state.replayed != outcome_.replayed) moved = parts_.steps.clock.Monotonic();
    outcome_.replayed = state.replayed;
    const bool streams = receiver_status == "streaming" && receiver->timeline == theirs_.timeline;
    if (streams && state.replayed >= outcome_.floor) return base::FaultPoint("rewind.verified");
    METAL_RETURN_IF_ERROR(parts_.steps.progress.CheckCancelled());
    if (parts_.steps.clock.Monotonic() - looked > kLookAtSource) {
      // What cannot be seen now is looked at again.
      const auto end = pg::QueryEndOfReplay(*session, kQuery);
      const absl::Status there = end.ok() && *end ? CheckNextWal(**end) : absl::OkStatus();
      if (base::NoRewindHelps(there)) return there;
      looked = parts_.steps.clock.Monotonic();
    }
    if (parts_.steps.clock.Monotonic() - moved > kNoProgress) break;
    parts_.steps.clock.Sleep(kPoll);
  }
  return base::Error(absl::StatusCode::kDeadlineExceeded,
                     "the standby stands still at {} (floor {}, WAL receiver {}). HINT: see {}",
                     outcome_.replayed.ToString(), outcome_.floor.ToString(), receiver_status,
                     parts_.steps.supervisor.log_path());
}

}  // namespace metal::node
