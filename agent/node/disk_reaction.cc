// What the node does about a sick disk under its own server. The orchestrator moves roles; a
// primary that may fence itself does so before it is asked, because nobody else may reach it.
#include <algorithm>

#include "agent/base/log.h"
#include "agent/node/database_role.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"

namespace metal::node {
namespace {

constexpr absl::Duration kImmediate = absl::Seconds(2), kKill = absl::Seconds(5);

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

void Node::CheckDisks() {
  CheckChecksums();
  parts_.terms.KeepFence();
  if (const auto any = SickDisk()) AskForRebuild(*any);
  const std::optional<observe::Fault> sick = SickDisk("demote");
  if (!sick) return;
  const TermRecord record = parts_.terms.Get();
  // Without an orchestrator there is nobody to fail over to: it is told, and left alone.
  if (record.term == 0 || record.fence.active || record.role_wanted != observe::Role::kPrimary) {
    return;
  }
  const std::string reason = fmt::format("disk: {} {}", sick->fault_class, sick->subject);
  const absl::Status fenced = parts_.terms.FenceNow({record.term, record.orchestrator_id}, reason);
  if (!fenced.ok()) {
    base::LogWarning("event=disk_fence message=\"{}\"", fenced.ToString());
    return;
  }
  Emit(parts_.events, observe::Severity::kCritical, "disk.fenced", sick->subject,
       fmt::format("this primary has fenced itself in term {}: {}. HINT: fail over "
                   "(metalctl shard failover)",
                   record.term, sick->message),
       {{"term", fmt::format("{}", record.term)}, {"class", sick->fault_class}});
  parts_.disks.NoteAction(sick->fault_class, sick->subject,
                          fmt::format("fenced the primary of term {}", record.term));
  OperationSpec spec;
  spec.kind = "FenceSickDisk";
  spec.subject = fmt::format("term {}", record.term);
  spec.term = record.term;
  spec.request.caller = "role watch";
  spec.parameters = {{"reason", reason}};
  // Refused while another action runs: the role watch then enforces the fence.
  const auto started = parts_.operations.Start(
      std::move(spec), [this](OperationContext& context) { return RunFence(context); });
  if (!started.ok()) {
    base::LogWarning("event=disk_fence message=\"{}\"", started.status().ToString());
  }
}

// Nothing is asked of the server, and nothing is read: both may hang. It is not started again on
// that disk; processes that hang in it are left to the kernel.
absl::StatusOr<OperationResult> Node::StopOnSickDisk(OperationContext& context,
                                                     const observe::Fault& fault) {
  const bool was_primary = parts_.board.Get()->postgres.role_observed == observe::Role::kPrimary;
  pg::StopOptions stop;
  stop.mode = pg::StopMode::kImmediate;
  stop.timeout = kImmediate;
  stop.escalate_to = pg::StopMode::kKill;
  stop.escalation_timeout = kKill;
  const auto stopped = parts_.supervisor.Stop(stop, &context.progress);
  if (!stopped.ok()) return stopped.status();
  parts_.disks.NoteAction(fault.fault_class, fault.subject, "stopped PostgreSQL");
  return OperationResult{"",
                         {{"was_primary", was_primary ? "true" : "false"},
                          {"postgres_down", "true"},
                          {"disk", fault.fault_class + " " + fault.subject}}};
}

}  // namespace metal::node
