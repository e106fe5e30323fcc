// What a standby with a sick disk asks for. It takes nothing away from the shard by itself: who
// counts for commits is the term holder's to say (metalctl shard watch --auto, or the
// orchestrator).
#include <algorithm>

#include "agent/node/emit.h"
#include "agent/node/node.h"

namespace metal::node {

void Node::AskForRebuild(const observe::Fault& fault) {
  const TermRecord record = parts_.terms.Get();
  if (record.term == 0 || record.role_wanted != observe::Role::kStandby) return;
  const std::string wish = fmt::format(
      "rebuild wanted: metalctl shard replace {} once the drive is changed", parts_.config.node_id);
  if (std::ranges::find(fault.disk->actions, wish) != fault.disk->actions.end()) return;
  parts_.disks.NoteAction(fault.fault_class, fault.subject, wish);
  Emit(parts_.events, observe::Severity::kError, "disk.rebuild_wanted", fault.subject,
       fmt::format("this standby is no copy to rely on: {} {}. HINT: {}", fault.fault_class,
                   fault.subject, wish),
       {{"class", fault.fault_class}, {"term", fmt::format("{}", record.term)}});
}

}  // namespace metal::node
