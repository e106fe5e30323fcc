#include "agent/node/control_witness.h"

#include <algorithm>
#include <array>

#include "agent/base/status.h"

namespace metal::node {
namespace {

constexpr absl::Duration kPatience = absl::Milliseconds(200);
// For what takes writes away: nobody waits for a sick disk's sake longer than a healthy one needs.
constexpr absl::Duration kHurry = absl::Milliseconds(20);

struct Kind {
  std::string_view name;
  absl::Duration patience;
};
constexpr Kind kKinds[] = {
    {"Promote", kPatience},
    {"Demote", kPatience},
    {"UndoDemote", kPatience},
    {"Rewind", kPatience},
    {"RestoreBackup", kPatience},
    {"StartPostgres", kPatience},
    {"RestartPostgres", kPatience},
    {"StopPostgres", kPatience},
    {"Clone", kPatience},
    {"FollowPrimary", kPatience},
    {"BeginTerm", kHurry},
    {"Fence", kHurry},
    {"EnforceFence", kHurry},
    {"EndLease", kHurry},
    {"EnforceLeaseEnd", kHurry},
    {"FenceSickDisk", absl::ZeroDuration()},  // its disk is known not to answer
};
constexpr std::array<std::string_view, 5> kEvents = {"postgres.started", "postgres.restarted",
                                                     "postgres.crashed", "postgres.adopted",
                                                     "postgres.stopped"};

// nullptr: the kind does not move the server.
const Kind* FindKind(std::string_view name) {
  const auto* const found = std::ranges::find(kKinds, name, &Kind::name);
  return found == std::end(kKinds) ? nullptr : found;
}

}  // namespace

bool MovesServer(std::string_view operation_kind) { return FindKind(operation_kind) != nullptr; }

void RecordControl(recorder::Recorder& recorder, std::string_view moment, std::string_view subject,
                   const absl::StatusOr<pg::ControlFile>& control) {
  recorder::Entry entry(recorder::RecordKind::kControl);
  entry.Add("moment", moment).Add("subject", subject);
  if (!control.ok()) {
    const auto message = control.status().message();
    recorder.Put(entry.Add("error", std::string_view(message.data(), message.size())));
    return;
  }
  const auto lsn = [](base::Lsn at) { return at.ToString(); };
  entry.Add("state", pg::ControlStateName(control->state));
  entry.Add("modified",
            absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", control->modified, absl::UTCTimeZone()));
  entry.Add("timeline", control->timeline).Add("previous_timeline", control->previous_timeline);
  entry.Add("checkpoint", lsn(control->checkpoint)).Add("redo", lsn(control->redo));
  entry.Add("min_recovery", lsn(control->min_recovery));
  entry.Add("min_recovery_timeline", control->min_recovery_timeline);
  entry.Add("backup_start", lsn(control->backup_start)).Add("backup_end", lsn(control->backup_end));
  entry.Add("next_xid", static_cast<int64_t>(control->next_xid));
  entry.Add("wal_level", pg::WalLevelName(control->wal_level));
  entry.Add("system_identifier", fmt::format("{}", control->system_identifier));
  recorder.Put(entry);
}

void ControlWitness::Before(std::string_view kind, const std::string& operation) {
  const Kind* const known = FindKind(kind);
  if (known != nullptr) Record(fmt::format("before {}", kind), operation, known->patience);
}

void ControlWitness::After(std::string_view kind, const std::string& operation) {
  const Kind* const known = FindKind(kind);
  if (known != nullptr) Record(fmt::format("after {}", kind), operation, known->patience);
}

void ControlWitness::Note(const observe::Event& event) {
  if (std::ranges::find(kEvents, event.type) == kEvents.end()) return;
  Record("at " + event.type, event.subject, absl::ZeroDuration());
}

void ControlWitness::Look(const std::string& moment, const std::string& subject) {
  Record(moment, subject, kPatience);
}

void ControlWitness::Record(const std::string& moment, const std::string& subject,
                            absl::Duration patience) {
  const auto read = reads_.Run<bool>(
      "record-control",
      [directory = data_dir_, recorder = recorder_, moment, subject] {
        RecordControl(*recorder, moment, subject, pg::ReadControlFile(directory));
        return true;
      },
      patience);
  if (read || patience == absl::ZeroDuration()) return;
  RecordControl(
      *recorder_, moment, subject,
      base::Error(absl::StatusCode::kDeadlineExceeded, "the data disk did not answer within {}",
                  absl::FormatDuration(patience)));
}

}  // namespace metal::node
