// What is ordered about room, from what is published.
#include <algorithm>

#include "agent/node/database_role.h"
#include "agent/node/room_work.h"
#include "fmt/ranges.h"

namespace metal::node {
namespace {

bool HoldsDatabase(const observe::DiskSection& disk) {
  return disk.space && std::ranges::any_of(disk.roles, IsDatabaseRole);
}

std::string TightText(const observe::NodeStatus& status) {
  std::vector<std::string> parts;
  for (const observe::DiskSection& disk : status.disks) {
    if (!HoldsDatabase(disk) || !disk.space->tight) continue;
    parts.push_back(fmt::format("{} ({}) has {} free", disk.mount_point,
                                fmt::join(disk.roles, ", "),
                                base::ByteCount{disk.filesystem_free_bytes}.ToString()));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

// Space that was lent to the server is no room for its clients.
bool OwesReserve(const observe::RoomSection& room) {
  return std::ranges::any_of(room.reserves, [](const observe::ReserveSection& each) {
    return each.reason == kReserveGiven || each.reason == kNoRoomForReserve;
  });
}

}  // namespace

RoomWork DecideRoom(const observe::NodeStatus& status, const base::AgentConfig& config,
                    bool may_be_primary) {
  using S = observe::PostgresState;
  RoomWork work;
  work.data_dir = config.pg_data_dir;
  work.reserve = config.disk_reserve;
  work.read_only_at = config.disk_read_only_at;
  const observe::PostgresSection& postgres = status.postgres;
  const bool runs = postgres.state == S::kRunning;
  const bool primary = runs ? postgres.role_observed == observe::Role::kPrimary : may_be_primary;
  const bool standby = runs && postgres.role_observed == observe::Role::kStandby;
  const bool down = postgres.state == S::kCrashed || postgres.state == S::kQuarantined;
  bool seen = false, tight = false;
  for (const observe::DiskSection& disk : status.disks) {
    if (!HoldsDatabase(disk)) continue;
    seen = true;
    tight = tight || disk.space->tight;
    if (!disk.space->exhausted && !(down && disk.space->tight)) continue;
    for (const std::string& role : disk.roles) work.give_back.insert(role);
  }
  // What is not known stays as it is; a standby is read-only anyway, and may be promoted.
  if (standby || work.read_only_at == 0) {
    work.read_only = false;
  } else if (seen) {
    const bool stays = status.room.read_only && OwesReserve(status.room);
    work.read_only = primary && (tight || stays);
  }
  work.make_reserves = runs && seen && !tight;
  work.reason = tight ? TightText(status) : "the reserve was given to the server";
  return work;
}

}  // namespace metal::node
