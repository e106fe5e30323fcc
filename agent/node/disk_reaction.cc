// What the node does about a sick disk under its own server. The orchestrator moves roles; a
// primary that may fence itself does so before it is asked, because nobody else may reach it.
// The fence counts first, then clients are kept away, then the server is stopped, each within its
// own time: nothing here waits for a disk (fence/).
#include <algorithm>

#include "agent/base/log.h"
#include "agent/base/utf8.h"
#include "agent/node/database_role.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"
#include "agent/node/steps/step_events.h"
#include "agent/node/terms/term_record.h"
#include "fmt/ranges.h"

namespace metal::node {
namespace {

constexpr absl::Duration kImmediate = absl::Seconds(5), kKill = absl::Seconds(5);

}  // namespace

std::optional<observe::Fault> Node::SickDisk(std::string_view reaction) const {
  const auto status = parts_.board.Get();
  for (const auto& [key, fault] : status->faults) {
    if (fault.disk == nullptr || !fault.disk->confirmed || !fault.disk->fatal) continue;
    if (fault.disk->acknowledged) continue;
    if (!reaction.empty() && fault.disk->reaction != reaction) continue;
    if (std::ranges::any_of(fault.disk->roles, IsDatabaseRole)) return fault;
  }
  return std::nullopt;
}

void Node::CheckChecksums() {
  const auto status = parts_.board.Get();
  // A server that is down counts nothing, and what it had counted is no growth when it is back.
  if (status->postgres.state != observe::PostgresState::kRunning) return;
  auto grown = checksums_.Observe(status->postgres.checksum_failures, parts_.clock.Now());
  if (grown) parts_.disks.Take(*std::move(grown));
}

void Node::KeepDiskFence() {
  parts_.terms.KeepFence();
  const TermRecord record = parts_.terms.Get();
  cut_.Keep(record.FencedForDisk() ? FenceCause::kDisk
            : record.fence.active  ? FenceCause::kOther
                                   : FenceCause::kNone);
  sick_server_.Look();
}

void Node::CheckDisks() {
  CheckChecksums();
  KeepDiskFence();
  followers_.Look(*parts_.board.Get());
  if (const auto any = SickDisk()) AskForRebuild(*any);
  const std::optional<observe::Fault> sick = SickDisk("demote");
  if (!sick) return;
  const TermRecord record = parts_.terms.Get();
  // Without an orchestrator there is nobody to fail over to: it is told, and left alone.
  if (record.term == 0 || record.fence.active || record.role_wanted != observe::Role::kPrimary) {
    return;
  }
  const std::vector<std::string> fenced = fenced_peers_.Visible(parts_.clock.Monotonic());
  if (!fenced.empty()) return TellFenceWithheld(*sick, fenced);
  FenceSickPrimary(*sick, record);
}

// Two members down at once may leave nobody that leads. The fault's reaction stays what it is, so
// the status asks for the failover all the same, to whoever sees which standby is well.
void Node::TellFenceWithheld(const observe::Fault& sick, const std::vector<std::string>& fenced) {
  const std::string why =
      fmt::format("not fenced, asks for a failover: {} {} fenced because of its disk already",
                  fmt::join(fenced, ", "), fenced.size() == 1 ? "is" : "are");
  if (std::ranges::find(sick.disk->actions, why) != sick.disk->actions.end()) return;
  parts_.disks.NoteAction(sick.fault_class, sick.subject, why);
  Emit(parts_.events, observe::Severity::kCritical, "disk.fence_withheld", sick.subject,
       fmt::format("this primary is {}; {} {}: {}. HINT: metalctl shard failover --to a standby "
                   "that is well",
                   why, sick.fault_class, sick.subject, sick.message),
       {{"class", sick.fault_class}, {"fenced", fmt::format("{}", fmt::join(fenced, ","))}});
}

void Node::FenceSickPrimary(const observe::Fault& sick, const TermRecord& record) {
  const FlushedStandbys flushed = followers_.Flushed(parts_.clock.Now());
  std::string reason = fmt::format("{}{} {}; {}", kDiskFencePrefix, sick.fault_class, sick.subject,
                                   base::ToValidUtf8(flushed.text, 512));
  // Names of standbys are theirs to choose, and a reason is one line, or there is no fence.
  std::ranges::replace_if(
      reason, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  const TermHolder who{record.term, record.orchestrator_id};
  StepEvents steps("disk_fence", parts_.clock, parts_.events, who);
  const absl::Status fenced = parts_.terms.FenceNow(who, reason);
  if (!fenced.ok()) {
    base::LogWarning("event=disk_fence message=\"{}\"", fenced.ToString());
    return;
  }
  steps.Done("fence");
  std::vector<pid_t> senders;
  // As of now: a server that is gone has none, and their ids may be others' by now.
  const auto status = parts_.board.Get();
  for (const auto& each : status->followers.followers) senders.push_back(each.pid);
  const std::string cut = cut_.Cut(senders);
  if (!cut.empty()) steps.Done("cut clients", {{"clients", cut}});
  // Without a journal, which may hang with the disk; the operation comes after it and records it.
  const auto postmaster = parts_.supervisor.postmaster();
  if (postmaster != nullptr && postmaster->alive()) {
    sick_server_.Begin(sick, postmaster);
    steps.Done("tell the server to stop");
  }
  StartSickStop(record.term, reason);
  Emit(parts_.events, observe::Severity::kCritical, "disk.fenced", sick.subject,
       fmt::format("this primary has fenced itself in term {}: {}; {}. HINT: fail over "
                   "(metalctl shard failover)",
                   record.term, sick.message, flushed.text),
       {{"term", fmt::format("{}", record.term)},
        {"class", sick.fault_class},
        {"flushed_lsn", flushed.lsn.valid() ? flushed.lsn.ToString() : ""},
        {"flushed_by", flushed.by},
        {"clients", cut}});
  parts_.disks.NoteAction(sick.fault_class, sick.subject,
                          fmt::format("fenced the primary of term {}", record.term));
  if (!cut.empty()) parts_.disks.NoteAction(sick.fault_class, sick.subject, cut);
}

void Node::StartSickStop(uint64_t term, const std::string& reason) {
  if (sick_stop_runs_.exchange(true)) return;  // an earlier one hangs
  OperationSpec spec;
  spec.kind = "FenceSickDisk";
  spec.subject = fmt::format("term {}", term);
  spec.term = term;
  spec.request.caller = "role watch";
  spec.parameters = {{"reason", reason}};
  sick_stop_ = base::Thread("sick-stop", [this, spec = std::move(spec)]() mutable {
    // Refused while another action runs: the role watch then enforces the fence.
    const auto started = parts_.operations.Start(
        std::move(spec), [this](OperationContext& context) { return RunFence(context); });
    if (!started.ok()) {
      base::LogWarning("event=disk_fence message=\"{}\"", started.status().ToString());
    }
    sick_stop_runs_ = false;
  });
}

// Nothing is asked of the server, and nothing is read: both may hang. It is not started again on
// that disk; processes that hang in it are left to the kernel.
absl::StatusOr<OperationResult> Node::StopOnSickDisk(OperationContext& context,
                                                     const observe::Fault& fault) {
  const bool was_primary = parts_.terms.Get().FencedForDisk() ||
                           parts_.board.Get()->postgres.role_observed == observe::Role::kPrimary;
  const auto postmaster = parts_.supervisor.postmaster();
  if (postmaster != nullptr && postmaster->alive()) sick_server_.Begin(fault, postmaster);
  // The role watch kills meanwhile; whoever waits here only sees the end, and stores that the
  // server should not run.
  pg::StopOptions stop;
  stop.mode = pg::StopMode::kImmediate;
  stop.timeout = kImmediate;
  stop.escalate_to = pg::StopMode::kKill;
  stop.escalation_timeout = kKill;
  const auto stopped = parts_.supervisor.Stop(stop, &context.progress);
  if (!stopped.ok() && !absl::IsDeadlineExceeded(stopped.status())) return stopped.status();
  return OperationResult{"",
                         {{"was_primary", was_primary ? "true" : "false"},
                          {"postgres_down", stopped.ok() ? "true" : "false"},
                          {"disk", fault.fault_class + " " + fault.subject}}};
}

// A host whose primary cannot be fenced, because it hangs, must not stay one.
void Node::FeedWatchdog() {
  if (parts_.config.disk_watchdog.empty()) return;
  const auto status = parts_.board.Get();
  const TermRecord record = parts_.terms.Get();
  const auto postmaster = parts_.supervisor.postmaster();
  const bool left_over = record.FencedForDisk() && postmaster != nullptr && postmaster->alive();
  watchdog_.Look(record.MayRunAsPrimary() || left_over,
                 ProbesComeBack(*status, parts_.clock.Monotonic()));
}

}  // namespace metal::node
