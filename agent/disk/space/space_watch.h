// The room of all file systems that a node uses: one judge for each, whatever the number of roles
// on it, found by the file system's own id.
// Threading: not thread-safe; no I/O and no clock.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/filesystem_room.h"
#include "agent/disk/space/space_judge.h"

namespace metal::disk {

// One directory's file system as it was just read.
struct RoomView {
  std::string role, device, mount_point;
  base::FilesystemRoom room;
};

class SpaceWatch {
 public:
  explicit SpaceWatch(int read_only_at) : read_only_at_(read_only_at) {}

  Findings Observe(const std::vector<RoomView>& views, absl::Time now);
  // Of the file system with this id; nullopt: it was never observed.
  std::optional<observe::SpaceSection> SectionOf(uint64_t filesystem) const;

  // True once after something changed that Encode keeps.
  bool TakeChanged();
  // Text for Restore, a line for each file system.
  std::string Encode() const;
  void Restore(std::string_view text);

 private:
  const int read_only_at_;
  std::map<uint64_t, SpaceJudge> judges_;
  std::map<uint64_t, std::string> restored_;  // of file systems that were not seen yet
};

}  // namespace metal::disk
