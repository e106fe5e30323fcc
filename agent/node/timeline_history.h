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

// "1@0/3000000,2@0/5000148", for an operation's result; and back. Unreadable parts are left out.
std::string EncodeHistory(const std::vector<TimelineSwitch>& history);
std::vector<TimelineSwitch> DecodeHistory(std::string_view text);

}  // namespace metal::node
