// From what the monitor knows to what readers see: status sections, faults and events of disks.
// Threading: pure functions.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "agent/base/filesystem_room.h"
#include "agent/disk/inventory.h"
#include "agent/disk/nvme/log_watch.h"
#include "agent/disk/probe_state.h"
#include "agent/disk/prober.h"
#include "agent/disk/sources/block_stat.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::disk {

struct FilesystemSpace : base::FilesystemRoom {
  observe::SectionTime time;  // when it was read
};

// One watched directory at one moment.
struct TargetView {
  std::string role, directory;
  bool probed = true;
  ProbeState state = ProbeState::kUnknown;
  ProbeFault fault = ProbeFault::kNone;
  int32_t last_result = 0;  // of the last error, as ProbeObservation has it
  absl::Time state_since = absl::InfinitePast();
  std::string reason;
  std::optional<absl::Duration> oldest_outstanding;
  ProbeCounts counts;
  std::optional<StorageStack> stack;  // nullopt: not known yet
  std::optional<FilesystemSpace> space;
  std::optional<observe::SpaceSection> room;  // what the space watch makes of it
};

// What its state means, for people.
std::string StateText(const TargetView& target);

// "<disk>:<role>", or the role while the disk is not known.
std::string TargetSubject(const TargetView& target);

// One section for each pair of disk and filesystem; a filesystem on two disks is shown under both.
// A target without a disk (memory, or not known yet) gets a section of its own whose device is the
// filesystem's type, or "unknown".
std::vector<observe::DiskSection> BuildDiskSections(
    const std::vector<TargetView>& targets,
    const std::map<std::string, observe::SmartSection>& smart_by_disk,
    const observe::SectionTime& time);

// What to tell when a target's state changed from `from`; nullopt when nobody needs to know
// (unknown → healthy).
std::optional<observe::Event> EventOfChange(const TargetView& target, ProbeState from,
                                            absl::Duration time_in_from);

observe::ActivitySection SectionOf(const BlockActivity& activity);

// By disk. One that answered before and does not now keeps what it said, with the reason.
std::map<std::string, observe::SmartSection> SmartSectionsOf(
    const std::map<std::string, DriveReport>& reports);

}  // namespace metal::disk
