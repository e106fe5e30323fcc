#include "agent/node/room_work.h"

#include <sys/stat.h>

#include <utility>

#include "agent/base/file.h"
#include "agent/base/filesystem_room.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/disk/space/reserve_file.h"
#include "agent/pg/read_only_file.h"
#include "agent/pg/settings.h"

namespace metal::node {
namespace {

struct Place {
  std::string role, directory;
};

// The data directory, and pg_wal's when it lies on another file system.
std::vector<Place> PlacesOf(const std::string& data_dir) {
  std::vector<Place> places = {{"data", data_dir}};
  const std::string wal = base::JoinPath(data_dir, "pg_wal");
  struct stat of_data {
  }, of_wal{};
  if (stat(data_dir.c_str(), &of_data) == 0 && stat(wal.c_str(), &of_wal) == 0 &&
      of_data.st_dev != of_wal.st_dev) {
    places.push_back({"wal", wal});
  }
  return places;
}

// Making it must not make the file system full, nor bring it near.
bool HasRoomFor(const base::FilesystemRoom& room, base::ByteCount size, int read_only_at) {
  const uint64_t least = base::LeastFree(room, read_only_at).value;
  return room.free_bytes >= size.value + least + least / 2;
}

// What was kept of it before `work`, and what it is after.
absl::Status KeepReserve(const RoomWork& work, const Place& place,
                         observe::ReserveSection& reserve) {
  METAL_ASSIGN_OR_RETURN(reserve.size_bytes, disk::ReserveKept(reserve.path));
  METAL_ASSIGN_OR_RETURN(const base::FilesystemRoom room,
                         base::ReadFilesystemRoom(place.directory));
  const base::ByteCount size = disk::ReserveSize(room, work.reserve);
  if (size.value == 0 || work.give_back.contains(place.role)) {
    reserve.reason = size.value == 0 ? "disk.reserve is 0" : kReserveGiven;
    METAL_RETURN_IF_ERROR(disk::GiveReserveBack(reserve.path).status());
    reserve.size_bytes = 0;
    return absl::OkStatus();
  }
  // A file system was resized, or the configuration was changed.
  const bool right = reserve.size_bytes >= size.value && reserve.size_bytes <= 2 * size.value;
  if (right) return absl::OkStatus();
  const bool fits = reserve.size_bytes > 0 || HasRoomFor(room, size, work.read_only_at);
  if (!fits) reserve.reason = kNoRoomForReserve;
  if (!fits || !work.make_reserves) return absl::OkStatus();
  const absl::Status made = disk::MakeReserve(reserve.path, size);
  METAL_ASSIGN_OR_RETURN(reserve.size_bytes, disk::ReserveKept(reserve.path));
  return made;
}

absl::Status SetReadOnly(const std::string& data_dir, bool read_only) {
  return read_only ? pg::WriteReadOnlyFile(data_dir) : pg::RemoveReadOnlyFile(data_dir);
}

// ALTER SYSTEM has the last word.
bool IsOverridden(const std::string& data_dir) {
  const auto text = base::ReadFile(base::JoinPath(data_dir, "postgresql.auto.conf"));
  if (!text.ok()) return false;
  const auto settings = pg::ParseSettings(*text);
  return settings.ok() && settings->contains("default_transaction_read_only");
}

}  // namespace

RoomLook DoRoomWork(const RoomWork& work) {
  RoomLook look;
  look.reason = work.reason;
  for (const Place& place : PlacesOf(work.data_dir)) {
    observe::ReserveSection reserve;
    reserve.role = place.role;
    const disk::ReservePlace where = disk::ReservePlaceOf(place.directory);
    reserve.path = where.path;
    reserve.reason = where.reason;
    if (!where.path.empty()) {
      const absl::Status kept = KeepReserve(work, place, reserve);
      if (!kept.ok()) reserve.reason = std::string(kept.message());
      look.status.Update(kept);
    }
    look.reserves.push_back(std::move(reserve));
  }
  // After the reserves, for a file needs room too.
  const auto present = pg::HasReadOnlyFile(work.data_dir);
  look.status.Update(present.status());
  look.was_read_only = look.read_only = present.ok() && *present;
  if (!present.ok() || !work.read_only || *work.read_only == *present) return look;
  const absl::Status set = SetReadOnly(work.data_dir, *work.read_only);
  look.status.Update(set);
  if (set.ok()) look.read_only = *work.read_only;
  look.overridden = look.read_only && IsOverridden(work.data_dir);
  return look;
}

bool MakeRoomToStart(const base::AgentConfig& config) {
  uint64_t given = 0;
  for (const Place& place : PlacesOf(config.pg_data_dir)) {
    const disk::ReservePlace where = disk::ReservePlaceOf(place.directory);
    if (where.path.empty()) continue;
    const auto back = disk::GiveReserveBack(where.path);
    if (back.ok()) given += *back;
    if (!back.ok()) base::LogWarning("event=reserve message=\"{}\"", back.status().ToString());
  }
  if (given == 0 || config.disk_read_only_at == 0) return given > 0;
  const absl::Status read_only = pg::WriteReadOnlyFile(config.pg_data_dir);
  if (!read_only.ok()) base::LogWarning("event=read_only message=\"{}\"", read_only.ToString());
  return true;
}

}  // namespace metal::node
