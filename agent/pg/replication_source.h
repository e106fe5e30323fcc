// What a standby follows: where its primary is, how to log in there, and which slot keeps its WAL.
// Source: PostgreSQL, libpq-connect (keyword/value strings), config "Standby Servers".
// Threading: pure functions; IdentifySource blocks on the network.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"
#include "agent/pg/settings.h"

namespace metal::pg {

struct ReplicationSource {
  std::string host;  // name, address, or the directory of a unix socket
  int port = 5432;
  std::string user;      // with REPLICATION
  std::string passfile;  // empty: none
  std::string ssl_mode;  // libpq's sslmode; empty: libpq's default
  std::string slot;      // physical slot on the source; empty: none
  std::string application_name;
};

// "host='10.0.0.1' port='5432' …": a connection string that finds a dead link within seconds.
std::string ConnInfo(const ReplicationSource& source);

// primary_conninfo and primary_slot_name for `source`; restore_command goes: a node that
// acknowledges commits must not replay from an archive, which may hold WAL of another history.
SettingPatch FollowSettings(const ReplicationSource& source);
// Follows nobody.
SettingPatch FollowNobody();

inline constexpr std::string_view kSlotPrefix = "metal_";
// The prefix and the node's name in lower case, every other character than [a-z0-9_] as "_"; at
// most 63 bytes.
std::string SlotNameOf(std::string_view node_id);

inline constexpr std::string_view kUncountedPrefix = "rewound:";
// The application_name of a node that streams and must not count as a synchronous standby yet: one
// that no policy names. Never equal to `node_id`, also when the server cuts it off.
std::string UncountedName(std::string_view node_id);
// The same primary_conninfo with `node_id` in the place of UncountedName(node_id).
std::string WithOwnName(std::string conninfo, std::string_view node_id);

// "host:port" of a primary_conninfo, for people; empty when it names none.
std::string AddressIn(const std::string& conninfo);

// Who answers at a source, by its own replication protocol.
struct SourceIdentity {
  uint64_t system_identifier = 0;
  base::TimelineId timeline = 0;
  base::Lsn flushed;
  std::string history;  // text of the timeline's history file; empty for timeline 1
};
// UNAVAILABLE: nobody answers, or not in time; PERMISSION_DENIED: no login for replication;
// DATA_LOSS: an answer that is none.
absl::StatusOr<SourceIdentity> IdentifySource(const ReplicationSource& source,
                                              absl::Duration timeout);
// The seam for tests without a server.
using SourceIdentifier =
    std::function<absl::StatusOr<SourceIdentity>(const ReplicationSource&, absl::Duration)>;

}  // namespace metal::pg
