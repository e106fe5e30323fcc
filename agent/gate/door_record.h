// What a door was last told, in its durable text form, and the rules of orders. Pure: no I/O, so
// every rule is tested without a disk. Threading: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::gate {

// A server that a door may lead to.
struct Target {
  std::string host;  // name, address, or directory of a unix socket (begins with '/')
  int port = 0;
  std::string ToString() const;  // "db-2:5432", "[::1]:5432", "/run/metal:5432"
  friend bool operator==(const Target&, const Target&) = default;
};
// INVALID_ARGUMENT unless the host is one name, address or absolute path that needs no quoting in
// PgBouncer's configuration, and the port is 1 to 65535.
absl::Status CheckTarget(const Target& target);

// Who orders, as each role-changing call names it.
struct Orderer {
  uint64_t term = 0;
  std::string orchestrator_id;
  std::string request_id;  // empty: the order is not recognised when it is repeated
};

struct DoorRecord {
  Target target;  // where the door leads; while held: where it led before
  bool held = false;
  absl::Time held_since = absl::InfinitePast();  // wall clock, as held_until
  absl::Time held_until = absl::InfinitePast();
  absl::Duration held_for;  // as ordered: no step of the clock makes a hold longer than this
  uint64_t term = 0;        // of the last order that was taken; 0: none yet
  std::string orchestrator_id;
  std::vector<std::string> requests;  // ids of the last orders, oldest first, at most 16
};

// "metal-door 1\nterm=7\n...crc32c=xxxxxxxx\n"; values are escaped as base/text_map.h says.
std::string EncodeDoorRecord(const DoorRecord& record);
// DATA_LOSS when the text is cut, has a wrong checksum, an unknown version or a missing key.
absl::StatusOr<DoorRecord> DecodeDoorRecord(std::string_view text);

// What a repeated request id means.
enum class Asked {
  kNew,        // not seen before, or no id
  kLast,       // the last order that was taken: it is in force, or it has run out
  kSuperseded  // another order was taken since: a late copy must not act again
};
Asked WasAsked(const DoorRecord& record, const std::string& request_id);

// FAILED_PRECONDITION, reason STALE_TERM (lower than the last order's) or TERM_HELD (equal, another
// orchestrator), with stored_term and orchestrator_id in the metadata; REQUEST_SUPERSEDED for a
// late copy. INVALID_ARGUMENT for term 0 or an empty orchestrator.
absl::Status CheckOrder(const DoorRecord& record, const Orderer& orderer);

// Each answers the record that must be stored. REQUIRES: CheckOrder is OK and the order is new.
// A hold of a held door keeps `held_since` and gets the new deadline.
DoorRecord ApplyHold(const DoorRecord& record, const Orderer& orderer, absl::Duration hold_for,
                     absl::Time now);
DoorRecord ApplyRelease(const DoorRecord& record, const Orderer& orderer, const Target& target);
// The hold ran out or was given up: the door leads again to where it led before.
DoorRecord ApplyExpiry(const DoorRecord& record);

// How long the hold of a record that was just read still lasts: never more than was ordered,
// whatever the wall clock did in between; 0 when it has run out.
absl::Duration HoldLeft(const DoorRecord& record, absl::Time now);

}  // namespace metal::gate
