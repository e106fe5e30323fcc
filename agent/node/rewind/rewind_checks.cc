// RewindRun's checks: they change nothing.
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/node/rewind/ancestry.h"
#include "agent/node/rewind/rewind_run.h"
#include "agent/node/rewind/timeline_history.h"
#include "agent/pg/data_directory.h"
#include "agent/pg/metal_schema.h"
#include "agent/pg/replication.h"
#include "agent/pg/wal_record.h"

namespace metal::node {
namespace {

constexpr absl::Duration kQuery = absl::Seconds(5);
constexpr absl::Duration kIdentify = absl::Seconds(10);
// A standby whose stream breaks off waits for wal_retrieve_retry_interval between two tries.
constexpr absl::Duration kTriedPatience = absl::Seconds(2);
// A promotion's checkpoint is under way when its new primary is known; it may be a long one.
constexpr absl::Duration kCheckpointPatience = absl::Minutes(5);

absl::StatusOr<pg::ControlFile> ReadKeptControl(const std::string& state_dir) {
  const std::string path = base::JoinPath(RewindDirectory(state_dir), "pg_control");
  METAL_ASSIGN_OR_RETURN(const std::string bytes, base::ReadFile(path));
  const auto control = pg::DecodeControlFile(std::as_bytes(std::span(bytes)));
  return control.ok() ? control : base::Annotate(control.status(), path);
}

}  // namespace

absl::Status RewindRun::Check() {
  METAL_RETURN_IF_ERROR(LookAtTarget());
  METAL_RETURN_IF_ERROR(pg::CheckRewindTarget(control_));
  return LookAtSource();
}

absl::Status RewindRun::LookAtTarget() {
  METAL_ASSIGN_OR_RETURN(program_, parts_.install.Program("pg_rewind"));
  METAL_ASSIGN_OR_RETURN(const pg::PostgresVersion version, parts_.install.Version());
  major_ = version.major();
  METAL_ASSIGN_OR_RETURN(const pg::DataDirectory directory,
                         pg::InspectDataDirectory(parts_.steps.data_dir));
  const auto running = parts_.steps.supervisor.postmaster();
  was_running_ = running != nullptr && running->alive();
  resuming_ = directory.half_rewound();
  auto record = LoadRewindRecord(parts_.state_dir);
  if (record.ok()) record_ = *std::move(record);
  if (!resuming_) {
    METAL_RETURN_IF_ERROR(pg::CheckStartable(directory, version, geteuid()));
    if (directory.backup_label && !was_running_) {
      return base::WithReason(
          base::Error(
              absl::StatusCode::kFailedPrecondition,
              "data directory {} has a backup_label: it is a copy that has not replayed its "
              "backup. HINT: metalctl pg start, then rewind",
              directory.path),
          {"REWIND_REFUSED", {}});
    }
    METAL_ASSIGN_OR_RETURN(control_, pg::ReadControlFile(directory.path));
    return absl::OkStatus();
  }
  if (!record.ok()) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "data directory {} is half rewound and the notes of that rewind are gone ({}). "
                    "HINT: make the node anew from another one or a backup",
                    directory.path, std::string(record.status().message())),
        {"DATA_DIRECTORY_INCOMPLETE", {{"path", directory.path}}});
  }
  METAL_ASSIGN_OR_RETURN(control_, ReadKeptControl(parts_.state_dir));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<pg::SqlSession>> RewindRun::ConnectSource() {
  return parts_.connect_remote(parts_.source);
}

absl::Status RewindRun::LookAtSource() {
  METAL_ASSIGN_OR_RETURN(const pg::SourceIdentity identity,
                         parts_.identify_source(parts_.source, kIdentify));
  history_ = identity.history;
  theirs_ = {};
  theirs_.timeline = identity.timeline;
  theirs_.received = theirs_.replayed = identity.flushed;
  METAL_ASSIGN_OR_RETURN(theirs_.history, ParseTimelineHistory(identity.history));
  // The plan of pg_rewind's query over all files is dear by estimate: compiling it takes longer
  // than running it.
  conninfo_ = pg::ConnInfo(parts_.source) + " dbname='postgres' options='-c jit=off'";
  METAL_ASSIGN_OR_RETURN(const auto session, ConnectSource());
  METAL_ASSIGN_OR_RETURN(server_, pg::QueryRewindSource(*session, parts_.source.slot, kQuery));
  METAL_RETURN_IF_ERROR(pg::CheckRewindSource(server_, control_, major_));
  METAL_ASSIGN_OR_RETURN(source_terms_,
                         pg::QueryTermHistory(*session, pg::kTermHistoryRows, kQuery));
  return resuming_ ? CheckResumable() : absl::OkStatus();
}

absl::Status RewindRun::AwaitCheckpoint() {
  if (server_.checkpointed()) return absl::OkStatus();
  parts_.steps.progress.BeginPhase("waiting for the source's checkpoint");
  METAL_ASSIGN_OR_RETURN(const auto session, ConnectSource());
  const absl::Status reached =
      PollUntil(parts_.steps, kCheckpointPatience,
                "the source did not write its first checkpoint after the promotion",
                [&]() -> absl::StatusOr<bool> {
                  METAL_ASSIGN_OR_RETURN(
                      server_, pg::QueryRewindSource(*session, parts_.source.slot, kQuery));
                  METAL_RETURN_IF_ERROR(pg::CheckRewindSource(server_, control_, major_));
                  return server_.checkpointed();
                });
  if (!absl::IsDeadlineExceeded(reached)) return reached;
  return base::Error(reached.code(), "{}. HINT: CHECKPOINT there, then repeat",
                     std::string(reached.message()));
}

// What a first run copied is of its source's history. A repetition finds the blocks again that this
// node changed, but not those that came from a history which the new source never had. Two of them
// may have timelines of one number.
absl::Status RewindRun::CheckResumable() const {
  const std::string difference =
      DifferenceFrom(record_, {theirs_.timeline, theirs_.history, source_terms_});
  if (!difference.empty()) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "the data directory is half rewound to timeline {} of {}; {}. HINT: make the "
                    "node anew from another one or a backup",
                    record_.source_timeline, record_.source, difference),
        {"DATA_DIRECTORY_INCOMPLETE", {{"path", parts_.steps.data_dir}}});
  }
  if (record_.stage != RewindStage::kRunning || record_.repeatable) return absl::OkStatus();
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "the rewind to {} was cut off and cannot be repeated: there was no room to keep "
                  "the WAL that it reads. HINT: make the node anew from another one or a backup",
                  record_.source),
      {"DATA_DIRECTORY_INCOMPLETE", {{"path", parts_.steps.data_dir}}});
}

absl::Status RewindRun::CheckSourceWal(const WalPosition& ours) {
  const Fork fork = FindFork(ours, theirs_);
  // The timeline that the source went over to at the fork.
  base::TimelineId next = theirs_.timeline;
  for (auto entry = theirs_.history.rbegin(); entry != theirs_.history.rend(); ++entry) {
    if (entry->timeline > fork.timeline) next = entry->timeline;
  }
  if (fork.timeline == 0 || next == fork.timeline) return absl::OkStatus();
  const std::string name = base::WalFileName(next, fork.lsn, control_.wal_segment_size);
  METAL_ASSIGN_OR_RETURN(const auto session, ConnectSource());
  METAL_ASSIGN_OR_RETURN(const bool there, pg::SourceHasWal(*session, name, kQuery));
  if (there) return absl::OkStatus();
  return base::WithReason(
      base::Error(
          absl::StatusCode::kFailedPrecondition,
          "the source does not have its WAL from {} on any more ({}), where this node's left "
          "it. HINT: make the node anew from another one or a backup; a replication slot on "
          "the source keeps WAL",
          fork.lsn.ToString(), name),
      {"WAL_MISSING", {{"first_missing", name}}});
}

// Nothing but a stream brings it: a node that follows takes no WAL from an archive.
absl::Status RewindRun::CheckNextWal(base::Lsn end) {
  METAL_ASSIGN_OR_RETURN(const auto source, ConnectSource());
  METAL_ASSIGN_OR_RETURN(const base::Lsn oldest,
                         pg::OldestWalOfSource(*source, control_.wal_segment_size, kQuery));
  if (end >= oldest) return absl::OkStatus();
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "this node needs WAL from {} on, and the source has removed its WAL before {}. "
                  "HINT: make the node anew from another one or a backup; a replication slot on "
                  "the source keeps WAL",
                  end.ToString(), oldest.ToString()),
      {"WAL_MISSING",
       {{"first_missing", base::WalFileName(control_.timeline, end, control_.wal_segment_size)}}});
}

absl::Status RewindRun::CheckNotStranded(pg::SqlSession& session) {
  std::optional<base::Lsn> end;
  const absl::Status seen = PollUntil(
      parts_.steps, kTriedPatience, "it was not seen to stream", [&]() -> absl::StatusOr<bool> {
        METAL_ASSIGN_OR_RETURN(const auto receiver, pg::QueryReceiver(session, kQuery));
        if (receiver && receiver->status == "streaming") return true;
        METAL_ASSIGN_OR_RETURN(end, pg::QueryEndOfReplay(session, kQuery));
        return end.has_value();
      });
  if (!seen.ok() && !absl::IsDeadlineExceeded(seen)) return seen;
  return end ? CheckNextWal(*end) : absl::OkStatus();
}

absl::StatusOr<WalPosition> RewindRun::LookAtPosition() {
  METAL_ASSIGN_OR_RETURN(WalPosition ours, ReadPositionOffline(parts_.steps.data_dir));
  // pg_control knows where a primary's shutdown checkpoint begins; the source needs all of it.
  if (control_.state != pg::ControlState::kShutDown) return ours;
  const auto end = pg::ReadRecordEnd(
      parts_.steps.data_dir,
      {control_.timeline, control_.checkpoint, control_.wal_segment_size, control_.wal_block_size});
  // Unreadable: one byte more is past the record's beginning, which is all that matters.
  ours.received = end.ok() ? *end : base::Lsn{control_.checkpoint.value + 1};
  return ours;
}

absl::StatusOr<bool> RewindRun::HasDiverged(const WalPosition& ours) {
  if (!CheckAncestry(ours, theirs_).ok()) return true;
  if (ours.timeline != theirs_.timeline || ours.received <= server_.current) return false;
  return base::WithReason(
      base::Error(
          absl::StatusCode::kFailedPrecondition,
          "this node has WAL up to {} of timeline {}, the source only up to {}: it lost WAL, "
          "or there are two histories of one timeline, which no rewind can tell apart. HINT: "
          "make this node anew, or find out which of the two is right",
          ours.received.ToString(), ours.timeline, server_.current.ToString()),
      {"DIVERGED",
       {{"fork_timeline", fmt::format("{}", ours.timeline)},
        {"fork_lsn", server_.current.ToString()}}});
}

// Timelines of one number that began at different places are two for pg_rewind too.
bool RewindRun::IsSeenByRewind(const base::ErrorReason& parted_by, const WalPosition& ours) const {
  if (parted_by.metadata.at("rewind") == "possible") return true;
  const auto found = parted_by.metadata.find("timeline");
  if (found == parted_by.metadata.end()) return false;
  const std::string& text = found->second;
  base::TimelineId number = 0;  // unreadable: no fork is before it
  std::from_chars(text.data(), text.data() + text.size(), number);
  const Fork fork = FindFork(ours, theirs_);
  return fork.timeline != 0 && fork.timeline < number;
}

absl::StatusOr<bool> RewindRun::NeedsRewind(const WalPosition& ours, pg::SqlSession* session) {
  // First: positions of two histories say nothing about each other.
  const absl::Status terms = parts_.check_terms(session);
  const auto reason = base::GetReason(terms);
  const bool parted = reason && reason->reason == "HISTORY_DIVERGED";
  if (parted && !IsSeenByRewind(*reason, ours)) return terms;
  METAL_ASSIGN_OR_RETURN(const bool diverged, HasDiverged(ours));
  // What it left behind on another timeline is what a rewind is for.
  if (parted && !diverged) return terms;
  if (!diverged || ours.timeline != theirs_.timeline) return diverged;
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "this node and the source are on timeline {} in two histories, which pg_rewind "
                  "does not tell apart. HINT: make the node anew from another one or a backup",
                  ours.timeline),
      {"HISTORY_DIVERGED", {{"rewind", "impossible"}}});
}

}  // namespace metal::node
