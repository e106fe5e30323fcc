// What the node does on its data disk about room: the file that makes transactions read-only, and
// the reserves. One call does all that is ordered and says how things are then.
// Threading: blocks on the data disk; run it on a thread that may be left behind.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "agent/base/config.h"
#include "agent/base/units.h"
#include "agent/observe/status_board.h"

namespace metal::node {

// Reasons of a reserve that is to be made again once there is room; until then there is none for
// clients either.
inline constexpr std::string_view kReserveGiven = "it was given to the server";
inline constexpr std::string_view kNoRoomForReserve = "there is no room for it";

struct RoomWork {
  std::string data_dir;
  base::ByteCount reserve;  // as configured
  int read_only_at = 0;
  std::optional<bool> read_only;    // nullopt: as it is
  std::string reason;               // of `read_only`, for people
  std::set<std::string> give_back;  // roles whose reserve the server needs
  bool make_reserves = false;       // where there is room for them
};

struct RoomLook {
  absl::Status status;         // the first error; the rest was done all the same
  bool was_read_only = false;  // before it
  bool read_only = false;
  bool overridden = false;  // it has no effect: ALTER SYSTEM set the same
  std::string reason;       // as ordered
  std::vector<observe::ReserveSection> reserves;
};

// Pure. `may_be_primary`: the stored order allows it; for a server that does not run. What is not
// known stays as it is; a standby is never made read-only, for it may be promoted.
RoomWork DecideRoom(const observe::NodeStatus& status, const base::AgentConfig& config,
                    bool may_be_primary);

RoomLook DoRoomWork(const RoomWork& work);

// For a server that cannot start for want of space: gives it the reserves, and makes it read-only
// where that is configured. True: something was given.
bool MakeRoomToStart(const base::AgentConfig& config);

}  // namespace metal::node
