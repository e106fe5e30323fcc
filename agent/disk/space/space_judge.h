// What is to be told of one file system's room: levels that it reaches, the time that its room will
// last, and that it is full before it is (evidence for the fault class "full", for each role).
// Events: disk.space_level, disk.space_recovered, disk.space_forecast; subject "<disk>:<role>" or
// the role; attributes: role, roles, mount_point, free_bytes, used_percent, what ("bytes",
// "inodes"), level or horizon ("24h", "1w").
// A forecast is told when the steady growth of the last hours fills the file system within a day,
// and more is used than ever before in the week, where that is known; or when the growth of the
// last days fills it within a week.
// Threading: not thread-safe; no I/O and no clock.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "agent/base/filesystem_room.h"
#include "agent/disk/sources/kernel_log.h"
#include "agent/disk/space/space_history.h"
#include "agent/disk/space/space_level.h"
#include "agent/observe/status_board.h"

namespace metal::disk {

// The file system, for people.
struct SpacePlace {
  std::string device;  // kernel name of its disk; empty: it has none
  std::string mount_point;
  std::set<std::string> roles;  // what lies there; not empty
};

class SpaceJudge {
 public:
  // `read_only_at`: percent, as LeastFree takes it.
  explicit SpaceJudge(int read_only_at) : read_only_at_(read_only_at) {}

  Findings Observe(const base::FilesystemRoom& room, const SpacePlace& place, absl::Time now);
  // As of the last observation.
  const observe::SpaceSection& section() const { return section_; }
  // True once after something changed that Encode keeps.
  bool TakeChanged() { return std::exchange(changed_, false); }

  // One line: what was told, and the history.
  std::string Encode() const;
  // What Encode made; other text changes nothing.
  void Restore(std::string_view line);

 private:
  struct Told {
    const base::FilesystemRoom& room;
    const SpacePlace& place;
    Findings& out;
  };
  void Level(const Told& told, SpaceLevel& level, double percent, const char* what);
  void Forecast(const Told& told);
  void Warn(const Told& told, bool& warned, const std::optional<absl::Duration>& left,
            absl::Duration horizon, const char* name);
  void Full(const Told& told, absl::Time now);

  const int read_only_at_;
  SpaceLevel bytes_, inodes_;
  SpaceHistory history_;
  bool warned_day_ = false, warned_week_ = false;
  std::set<std::string> full_roles_;  // for which evidence was given and not withdrawn
  std::string full_device_;
  bool changed_ = false;
  observe::SpaceSection section_;
};

}  // namespace metal::disk
