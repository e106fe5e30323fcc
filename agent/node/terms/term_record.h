// What the term store holds, its text form, and the rules of terms. Pure: no I/O, so every rule is
// tested without a disk. Threading: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/observe/status_board.h"

namespace metal::node {

// Who leads, as each role-changing call names it. Terms start at 1.
struct TermHolder {
  uint64_t term = 0;
  std::string orchestrator_id;
};

// How the reason of a fence begins that a primary set for itself because of its disk.
inline constexpr std::string_view kDiskFencePrefix = "disk: ";
inline constexpr size_t kLongestFenceReason = 1024;  // bytes

struct FenceRecord {
  bool active = false;
  std::string reason;
  uint64_t term = 0;  // the term under which it was set; only this or a later one lifts it
  absl::Time since = absl::InfinitePast();
};

// A primary's lease: without a renewal within `ttl` it stops being one. What runs is in the lease
// page (agent/node/terms/lease.h); this is what outlives the host: that there is a lease at all.
struct LeaseRecord {
  absl::Duration ttl;    // zero: none
  uint64_t term = 0;     // the term whose primary has it
  bool expired = false;  // it ran out: no primary before a Promote of a later term
};
inline constexpr absl::Duration kShortestLease = absl::Seconds(1);
inline constexpr absl::Duration kLongestLease = absl::Minutes(5);

struct TermRecord {
  uint64_t term = 0;  // 0: none yet
  std::string orchestrator_id;
  observe::Role role_wanted = observe::Role::kStandby;
  uint64_t role_term = 0;  // the term under which role_wanted was set
  // The term in which this primary was told to step down; only the same term may take that back.
  uint64_t demote_term = 0;
  FenceRecord fence;
  LeaseRecord lease;

  // The only condition under which Postgres may be started read-write: an older term's order to be
  // primary does not count, nor does one whose lease ran out.
  bool MayRunAsPrimary() const { return !LeaseRanOut() && IsOrderedPrimary(); }
  // The primary of the stored term holds a lease, whether or not it has run out.
  bool HasLease() const {
    return lease.ttl > absl::ZeroDuration() && lease.term == role_term && IsOrderedPrimary();
  }
  bool LeaseRanOut() const { return lease.expired && lease.term == term; }
  // The node fenced itself because of its disk; an ordered fence on top of that adds its own
  // reason.
  bool FencedForDisk() const { return fence.active && fence.reason.starts_with(kDiskFencePrefix); }

 private:
  bool IsOrderedPrimary() const {
    return !fence.active && role_wanted == observe::Role::kPrimary && role_term == term && term > 0;
  }
};

// "metal-term 1\nterm=7\n...crc32c=xxxxxxxx\n"; values are escaped as text_map.h says.
std::string EncodeTermRecord(const TermRecord& record);
// DATA_LOSS when the text is cut, has a wrong checksum, an unknown version or a missing key.
absl::StatusOr<TermRecord> DecodeTermRecord(std::string_view text);

// The rules. Each answers the record that must be stored, or why not; equal records mean that there
// is nothing to store. Reasons, all FAILED_PRECONDITION: STALE_TERM, TERM_HELD and ROLE_TRANSITION
// (a term that has not begun here) with metadata stored_term and orchestrator_id; FENCED with
// fence_term and fence_reason; LEASE_EXPIRED with lease_term.
absl::StatusOr<TermRecord> ApplyBeginTerm(const TermRecord& record, const TermHolder& who);
absl::Status CheckHolder(const TermRecord& record, const TermHolder& who);
// The error of a node whose fence forbids something.
absl::Status Fenced(const TermRecord& record);
// Why a dead server is not started again by itself: the disk under it is what the node fenced
// itself for. Empty: it may be.
std::string HeldDown(const TermRecord& record);
// The error of a term whose lease ran out.
absl::Status LeaseExpired(const TermRecord& record);
// `lease_ttl`: of a new primary, zero for none; INVALID_ARGUMENT outside of the limits. The primary
// of this term that is ordered again keeps its lease when `lease_ttl` is zero. A standby has none;
// that one ran out stays known.
absl::StatusOr<TermRecord> ApplyRoleWanted(const TermRecord& record, const TermHolder& who,
                                           observe::Role role,
                                           absl::Duration lease_ttl = absl::ZeroDuration());
// Gives the primary of the stored term a lease, or another ttl. ROLE_TRANSITION when this node is
// not ordered to be it.
absl::StatusOr<TermRecord> ApplyRenewLease(const TermRecord& record, const TermHolder& who,
                                           absl::Duration ttl);
// The lease ran out: the node is wanted as a standby. `record` itself without a lease.
TermRecord ApplyLeaseExpired(const TermRecord& record);
// A Demote: the term, higher or equal, and the end of the primary's role in one record.
absl::StatusOr<TermRecord> ApplyDemote(const TermRecord& record, const TermHolder& who);
// The primary's role again, in the term of its Demote. FAILED_PRECONDITION ROLE_TRANSITION when
// this term demoted nobody here. It comes back without a lease.
absl::StatusOr<TermRecord> ApplyUndoDemote(const TermRecord& record, const TermHolder& who);
// The term, higher or equal, of one who says what this node follows: whoever was told to step down
// in it is followed by another one now, so that is not taken back any more.
absl::StatusOr<TermRecord> ApplyFollow(const TermRecord& record, const TermHolder& who);
// On top of an earlier fence: its reason is replaced, but one because of the disk stays in front of
// the other. INVALID_ARGUMENT: `reason` is longer than kLongestFenceReason, or not one line.
absl::StatusOr<TermRecord> ApplyFence(const TermRecord& record, const TermHolder& who,
                                      const std::string& reason, absl::Time now);
// `record` with the fence of `fenced`, whichever is newer, and the role of a standby. One that is
// because of a disk stays so. The higher term of the two and its orchestrator.
TermRecord WithFence(const TermRecord& record, const TermRecord& fenced);
absl::StatusOr<TermRecord> ApplyUnfence(const TermRecord& record, const TermHolder& who);

}  // namespace metal::node
