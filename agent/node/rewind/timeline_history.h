// Timeline history files: which timelines led to one, and where each ended.
// Source: PostgreSQL src/backend/access/transam/timeline.c: lines "<timeline>\t<LSN>\t<reason>",
// '#' comments, oldest first. Threading: pure functions; ReadTimelineHistory blocks on the data
// disk.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/base/units.h"
#include "agent/node/requests.h"

namespace metal::node {

// DATA_LOSS on a line that the server would refuse, or timelines that do not grow.
absl::StatusOr<std::vector<TimelineSwitch>> ParseTimelineHistory(std::string_view text);

// Of <data_dir>/pg_wal/<timeline>.history; timeline 1 has none and is empty. NOT_FOUND when the
// file is not there.
absl::StatusOr<std::vector<TimelineSwitch>> ReadTimelineHistory(const std::string& data_dir,
                                                                base::TimelineId timeline);

// The newest timeline of which pg_wal (its file names) has the segment with the byte before `lsn`;
// 0 when there is none. A standby that loses its receiver soon after its primary changed the
// timeline has no other witness: pg_control learns of the timeline when the next pages are written.
base::TimelineId NewestTimelineAt(const std::vector<std::string>& wal_files, base::Lsn lsn,
                                  uint64_t wal_segment_bytes);

// A node that has received nothing beyond a switch is still on the timeline before it.
void StepBackToReceived(WalPosition& position);

// "1@0/3000000,2@0/5000148", for an operation's result; and back. Unreadable parts are left out.
std::string EncodeHistory(const std::vector<TimelineSwitch>& history);
std::vector<TimelineSwitch> DecodeHistory(std::string_view text);

}  // namespace metal::node
