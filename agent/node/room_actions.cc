// What the node does about a full disk under its server. It decides from what is published and
// changes files of the data disk by a thread that may be left behind; it takes no action lock, so
// that a disk that hangs holds up no change of role.
//
// What if the agent dies here? The file that makes transactions read-only is the only state: the
// next agent finds it, and removes it when there is room. A reserve that was given back is made
// again when there is room.
#include <algorithm>

#include "agent/base/log.h"
#include "agent/node/database_role.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"

namespace metal::node {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(2);
constexpr absl::Duration kPatience = absl::Seconds(2);
constexpr absl::Duration kCheckpointPatience = absl::Milliseconds(100);
constexpr absl::Duration kReserveRetry = absl::Minutes(1);
constexpr absl::Duration kCheckpoint = absl::Seconds(30);

bool Same(const observe::RoomSection& a, const observe::RoomSection& b) {
  return a.read_only == b.read_only && a.read_only_reason == b.read_only_reason &&
         std::ranges::equal(a.reserves, b.reserves, [](const auto& one, const auto& other) {
           return one.role == other.role && one.path == other.path &&
                  one.size_bytes == other.size_bytes && one.reason == other.reason;
         });
}

}  // namespace

absl::Duration Node::KeepRoom() {
  const auto status = parts_.board.Get();
  if (status->postgres.state == observe::PostgresState::kNoDataDirectory ||
      status->postgres.state == observe::PostgresState::kUnknown) {
    return kInterval;
  }
  RoomWork work = DecideRoom(*status, parts_.config, parts_.terms.Get().MayRunAsPrimary());
  const base::MonotonicTime now = parts_.clock.Monotonic();
  if (now < reserve_next_) work.make_reserves = false;
  auto look = room_call_.Run(
      "node-room", [work] { return DoRoomWork(work); }, kPatience);
  if (!look) return kInterval;  // its disk hangs, which others tell
  if (!look->status.ok()) {
    reserve_next_ = now + kReserveRetry;
    if (!room_ || room_->status != look->status) {
      base::LogWarning("event=room message=\"{}\"", look->status.ToString());
    }
  }
  ReportRoom(*look);
  room_ = *std::move(look);
  return kInterval;
}

void Node::ReportRoom(const RoomLook& look) {
  // What an agent before this one ordered, it has told.
  const bool was = room_ ? room_->read_only : look.was_read_only;
  observe::RoomSection section;
  section.read_only = look.read_only;
  section.reserves = look.reserves;
  if (look.read_only) section.read_only_reason = !look.reason.empty() ? look.reason : "disk full";
  if (!Same(parts_.board.Get()->room, section)) {
    parts_.board.Update([&](observe::NodeStatus& status) { status.room = section; });
  }
  for (size_t i = 0; room_ && i < look.reserves.size() && i < room_->reserves.size(); ++i) {
    ReportReserve(room_->reserves[i], look.reserves[i]);
  }
  if (look.read_only == was) return;
  const absl::Status reloaded = parts_.supervisor.Reload();
  if (!reloaded.ok()) base::LogWarning("event=room message=\"{}\"", reloaded.ToString());
  if (!look.read_only) {
    Emit(parts_.events, observe::Severity::kInfo, "node.writable", "postgres",
         "there is room again: new transactions may write");
    return;
  }
  NoteFull("made new transactions read-only");
  Emit(parts_.events, observe::Severity::kCritical, "node.read_only", "postgres",
       fmt::format(
           "new transactions of this primary are read-only until there is room: {}. HINT: {}",
           section.read_only_reason,
           look.overridden ? "ALTER SYSTEM RESET default_transaction_read_only: as it is set "
                             "there, this has no effect"
                           : "free space; a session that has to delete says SET "
                             "default_transaction_read_only = off"));
  CheckpointForRoom();
}

void Node::ReportReserve(const observe::ReserveSection& before,
                         const observe::ReserveSection& now) {
  if ((before.size_bytes > 0) == (now.size_bytes > 0)) return;
  if (now.size_bytes > 0) {
    Emit(parts_.events, observe::Severity::kInfo, "disk.reserve_made", now.role,
         fmt::format("{} are kept back in {}", base::ByteCount{now.size_bytes}.ToString(),
                     now.path));
    return;
  }
  const std::string given = base::ByteCount{before.size_bytes}.ToString();
  Emit(parts_.events, observe::Severity::kWarning, "disk.reserve_given", now.role,
       fmt::format("the reserve of {} ({}) was given to the server", given, now.path));
  NoteFull(fmt::format("gave the reserve of {} to PostgreSQL", given));
  CheckpointForRoom();
}

void Node::NoteFull(const std::string& text) {
  const auto status = parts_.board.Get();
  for (const auto& [key, fault] : status->faults) {
    if (fault.disk == nullptr || fault.fault_class != "full") continue;
    if (!std::ranges::any_of(fault.disk->roles, IsDatabaseRole)) continue;
    parts_.disks.NoteAction(fault.fault_class, fault.subject, text);
  }
}

// WAL that nobody needs any more goes with the next checkpoint, which may be minutes away. Nobody
// waits for it.
void Node::CheckpointForRoom() {
  const auto ask = [connect = parts_.connect]() -> absl::Status {
    METAL_ASSIGN_OR_RETURN(const auto session, connect());
    return session->Query("CHECKPOINT", kCheckpoint).status();
  };
  (void)room_checkpoint_.Run("node-checkpoint", ask, kCheckpointPatience);
}

}  // namespace metal::node
