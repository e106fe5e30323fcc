#include "agent/node/terms/term_record.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "agent/base/crc32c.h"
#include "agent/base/status.h"
#include "agent/base/text_map.h"
#include "fmt/format.h"

namespace metal::node {

namespace {

constexpr std::string_view kFirstLine = "metal-term 1";

std::string_view RoleText(observe::Role role) {
  return role == observe::Role::kPrimary ? "primary" : "standby";
}

absl::Status Damaged(std::string_view what) {
  return base::Error(absl::StatusCode::kDataLoss, "term record: {}", what);
}

std::optional<uint64_t> ParseNumber(std::string_view text, int radix = 10) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, radix);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

uint32_t Checksum(std::string_view text) {
  return base::Crc32c(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

absl::Status Refused(const TermRecord& record, std::string reason, std::string message) {
  return base::WithReason(absl::FailedPreconditionError(std::move(message)),
                          {.reason = std::move(reason),
                           .metadata = {{"stored_term", fmt::format("{}", record.term)},
                                        {"orchestrator_id", record.orchestrator_id}}});
}

absl::Status Stale(const TermRecord& record, const TermHolder& who) {
  return Refused(
      record, "STALE_TERM",
      fmt::format("term {} of {} is stale: this node follows term {} of {}. HINT: begin a "
                  "higher term",
                  who.term, who.orchestrator_id, record.term, record.orchestrator_id));
}

absl::Status Held(const TermRecord& record, const TermHolder& who) {
  return Refused(record, "TERM_HELD",
                 fmt::format("term {} belongs to {}, not to {}. HINT: begin a higher term",
                             record.term, record.orchestrator_id, who.orchestrator_id));
}

// Both texts travel in error metadata and in log lines.
absl::Status CheckOneLine(std::string_view what, std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "{} holds a control character. HINT: one line of text", what);
    }
  }
  return absl::OkStatus();
}

// A role of the stored term. A lease is of the primary alone; that one ran out stays known.
TermRecord WithRole(TermRecord record, observe::Role role) {
  record.role_wanted = role;
  record.role_term = record.term;
  if (!record.lease.expired) record.lease = LeaseRecord();
  return record;
}

absl::Status CheckLeaseTtl(absl::Duration ttl) {
  if (ttl >= kShortestLease && ttl <= kLongestLease) return absl::OkStatus();
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "a lease of {} is not possible. HINT: {} to {}", absl::FormatDuration(ttl),
                     absl::FormatDuration(kShortestLease), absl::FormatDuration(kLongestLease));
}

absl::Status CheckNamed(const TermHolder& who) {
  if (who.term == 0) {
    return absl::InvalidArgumentError("term is 0. HINT: terms start at 1");
  }
  if (who.orchestrator_id.empty()) {
    return absl::InvalidArgumentError("orchestrator_id is empty. HINT: name who holds the term");
  }
  if (who.orchestrator_id.size() > 256) {
    return absl::InvalidArgumentError("orchestrator_id is longer than 256 bytes");
  }
  return CheckOneLine("orchestrator_id", who.orchestrator_id);
}

bool IsForDisk(const std::string& reason) { return reason.starts_with(kDiskFencePrefix); }

// The reason of a fence on top of another: what keeps a server down on a sick disk stays in front,
// whoever fenced the node first, until the fence is lifted.
std::string BothReasons(const std::string& before, const std::string& now) {
  constexpr std::string_view kAlso = "; also: ";
  if (now.empty() || now == before) return before;
  if (IsForDisk(before) == IsForDisk(now)) return now;
  const std::string& disk = IsForDisk(before) ? before : now;
  const std::string& other = IsForDisk(before) ? now : before;
  if (other.empty()) return disk;
  // One other reason, the last: those of repeated calls do not pile up.
  std::string text = disk.substr(0, disk.find(kAlso));
  text += fmt::format("{}{}", kAlso, other);
  size_t end = std::min(text.size(), kLongestFenceReason);
  while (end > 0 && end < text.size() && (text[end] & 0xc0) == 0x80) --end;  // whole characters
  return text.substr(0, end);
}

}  // namespace

std::string EncodeTermRecord(const TermRecord& record) {
  const int64_t since_us = record.fence.active ? absl::ToUnixMicros(record.fence.since) : 0;
  std::string text = fmt::format(
      "{}\nterm={}\norchestrator_id={}\nrole_wanted={}\nrole_term={}\ndemote_term={}\n"
      "fence_active={}\nfence_reason={}\nfence_term={}\nfence_since_us={}\n",
      kFirstLine, record.term, base::EscapeLine(record.orchestrator_id),
      RoleText(record.role_wanted), record.role_term, record.demote_term,
      record.fence.active ? 1 : 0, base::EscapeLine(record.fence.reason), record.fence.term,
      since_us);
  // An agent from before leases reads the record all the same, and knows of none.
  if (record.lease.term != 0) {
    text += fmt::format("lease_ttl_us={}\nlease_term={}\nlease_expired={}\n",
                        absl::ToInt64Microseconds(record.lease.ttl), record.lease.term,
                        record.lease.expired ? 1 : 0);
  }
  text += fmt::format("crc32c={:08x}\n", Checksum(text));
  return text;
}

absl::StatusOr<TermRecord> DecodeTermRecord(std::string_view text) {
  const size_t crc_at = text.rfind("crc32c=");
  if (crc_at == std::string_view::npos || crc_at == 0 || text[crc_at - 1] != '\n' ||
      text.size() != crc_at + 7 + 8 + 1 || text.back() != '\n') {
    return Damaged("no checksum line at the end");
  }
  const std::string_view body = text.substr(0, crc_at);
  const auto crc = ParseNumber(text.substr(crc_at + 7, 8), 16);
  if (!crc || *crc != Checksum(body)) return Damaged("checksum does not match");
  std::map<std::string, std::string> values;
  bool first = true;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find('\n', at);
    const std::string_view line = body.substr(at, end - at);
    at = end + 1;
    if (first) {
      if (line != kFirstLine) return Damaged(fmt::format("unknown version \"{}\"", line));
      first = false;
      continue;
    }
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) return Damaged("a line without \"=\"");
    values[std::string(line.substr(0, equals))] = base::UnescapeLine(line.substr(equals + 1));
  }
  const auto number = [&](const char* key) { return ParseNumber(values[key]); };
  const auto term = number("term"), role_term = number("role_term"),
             fence_active = number("fence_active"), fence_term = number("fence_term"),
             since_us = number("fence_since_us");
  const std::string& role = values["role_wanted"];
  if (!term || !role_term || !fence_active || !fence_term || !since_us ||
      (role != "primary" && role != "standby")) {
    return Damaged("a key is missing");
  }
  TermRecord record;
  record.term = *term;
  record.orchestrator_id = values["orchestrator_id"];
  record.role_wanted = role == "primary" ? observe::Role::kPrimary : observe::Role::kStandby;
  record.role_term = *role_term;
  record.demote_term = number("demote_term").value_or(0);  // files of older agents have none
  record.fence.active = *fence_active != 0;
  record.fence.reason = values["fence_reason"];
  record.fence.term = *fence_term;
  if (record.fence.active) {
    record.fence.since = absl::FromUnixMicros(static_cast<int64_t>(*since_us));
  }
  if (!values.contains("lease_term")) return record;
  const auto ttl_us = number("lease_ttl_us"), lease_term = number("lease_term"),
             lease_expired = number("lease_expired");
  if (!ttl_us || !lease_term || !lease_expired) return Damaged("a key of the lease is missing");
  record.lease = {.ttl = absl::Microseconds(static_cast<int64_t>(*ttl_us)),
                  .term = *lease_term,
                  .expired = *lease_expired != 0};
  return record;
}

absl::StatusOr<TermRecord> ApplyBeginTerm(const TermRecord& record, const TermHolder& who) {
  METAL_RETURN_IF_ERROR(CheckNamed(who));
  if (who.term < record.term) return Stale(record, who);
  if (who.term == record.term) {
    if (who.orchestrator_id != record.orchestrator_id) return Held(record, who);
    return record;
  }
  TermRecord next = record;
  next.term = who.term;
  next.orchestrator_id = who.orchestrator_id;
  return next;
}

absl::Status Fenced(const TermRecord& record) {
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "this node is fenced since term {}: {}. HINT: Unfence it first",
                  record.fence.term, record.fence.reason),
      {.reason = "FENCED",
       .metadata = {{"fence_term", fmt::format("{}", record.fence.term)},
                    {"fence_reason", record.fence.reason}}});
}

absl::Status CheckHolder(const TermRecord& record, const TermHolder& who) {
  METAL_RETURN_IF_ERROR(CheckNamed(who));
  if (who.term < record.term) return Stale(record, who);
  if (who.term > record.term) {
    return Refused(record, "ROLE_TRANSITION",
                   fmt::format("term {} has not begun on this node, which follows term {}. HINT: "
                               "call BeginTerm first",
                               who.term, record.term));
  }
  if (who.orchestrator_id != record.orchestrator_id) return Held(record, who);
  return absl::OkStatus();
}

std::string HeldDown(const TermRecord& record) {
  if (!record.FencedForDisk()) return "";
  return fmt::format(
      "it stays down while the node is fenced because of its disk ({}). HINT: metalctl shard "
      "failover, then change the drive; metalctl unfence when it is to be trusted again",
      record.fence.reason);
}

absl::Status LeaseExpired(const TermRecord& record) {
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "the lease of term {} ran out on this node: in this term it is no primary again. "
                  "HINT: begin a higher term",
                  record.lease.term),
      {.reason = "LEASE_EXPIRED",
       .metadata = {{"lease_term", fmt::format("{}", record.lease.term)}}});
}

absl::StatusOr<TermRecord> ApplyRoleWanted(const TermRecord& record, const TermHolder& who,
                                           observe::Role role, absl::Duration lease_ttl) {
  METAL_RETURN_IF_ERROR(CheckHolder(record, who));
  TermRecord next = WithRole(record, role);
  if (role != observe::Role::kPrimary) return next;
  if (record.fence.active) return Fenced(record);
  if (record.LeaseRanOut()) return LeaseExpired(record);
  if (lease_ttl != absl::ZeroDuration()) {
    METAL_RETURN_IF_ERROR(CheckLeaseTtl(lease_ttl));
    next.lease = {.ttl = lease_ttl, .term = record.term, .expired = false};
  } else {
    next.lease = record.HasLease() ? record.lease : LeaseRecord();
  }
  return next;
}

absl::StatusOr<TermRecord> ApplyRenewLease(const TermRecord& record, const TermHolder& who,
                                           absl::Duration ttl) {
  METAL_RETURN_IF_ERROR(CheckLeaseTtl(ttl));
  METAL_RETURN_IF_ERROR(CheckHolder(record, who));
  if (record.fence.active) return Fenced(record);
  if (record.LeaseRanOut()) return LeaseExpired(record);
  if (!record.MayRunAsPrimary()) {
    return Refused(record, "ROLE_TRANSITION",
                   fmt::format("renew lease refused: this node is not ordered to be the primary of "
                               "term {}. HINT: Promote gives it a lease",
                               record.term));
  }
  TermRecord next = record;
  next.lease = {.ttl = ttl, .term = record.term, .expired = false};
  return next;
}

TermRecord ApplyLeaseExpired(const TermRecord& record) {
  if (record.lease.term == 0) return record;
  TermRecord next = record;
  next.lease.expired = true;
  if (next.lease.term == next.role_term) next.role_wanted = observe::Role::kStandby;
  return next;
}

absl::StatusOr<TermRecord> ApplyDemote(const TermRecord& record, const TermHolder& who) {
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyBeginTerm(record, who));
  // A repeated Demote after the first one took effect leaves the right to undo it.
  if (record.MayRunAsPrimary()) next.demote_term = next.term;
  return WithRole(next, observe::Role::kStandby);
}

absl::StatusOr<TermRecord> ApplyUndoDemote(const TermRecord& record, const TermHolder& who) {
  METAL_RETURN_IF_ERROR(CheckHolder(record, who));
  if (record.fence.active) return Fenced(record);
  if (record.demote_term != record.term) {
    return Refused(record, "ROLE_TRANSITION",
                   fmt::format("term {} did not demote this node. HINT: Promote makes a standby "
                               "the primary",
                               record.term));
  }
  if (record.LeaseRanOut()) return LeaseExpired(record);
  TermRecord next = WithRole(record, observe::Role::kPrimary);
  next.lease = LeaseRecord();  // an older term's that ran out is over
  return next;
}

absl::StatusOr<TermRecord> ApplyFollow(const TermRecord& record, const TermHolder& who) {
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyBeginTerm(record, who));
  next.demote_term = 0;
  return next;
}

absl::StatusOr<TermRecord> ApplyFence(const TermRecord& record, const TermHolder& who,
                                      const std::string& reason, absl::Time now) {
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyBeginTerm(record, who));
  if (reason.size() > kLongestFenceReason) {
    return absl::InvalidArgumentError(
        fmt::format("fence reason is longer than {} bytes", kLongestFenceReason));
  }
  METAL_RETURN_IF_ERROR(CheckOneLine("fence reason", reason));
  if (!next.fence.active) {
    next.fence.active = true;
    next.fence.since = now;
    next.fence.reason = reason;
  } else {
    next.fence.reason = BothReasons(next.fence.reason, reason);
  }
  next.fence.term = next.term;
  return WithRole(next, observe::Role::kStandby);
}

TermRecord WithFence(const TermRecord& record, const TermRecord& fenced) {
  TermRecord next = record;
  if (fenced.term > next.term) {
    next.term = fenced.term;
    next.orchestrator_id = fenced.orchestrator_id;
  }
  if (!next.fence.active) {
    next.fence = fenced.fence;
  } else {
    const std::string reason = BothReasons(fenced.fence.reason, next.fence.reason);
    const bool newer = fenced.fence.term > next.fence.term;
    if (newer) next.fence = fenced.fence;
    if (!newer || IsForDisk(reason)) next.fence.reason = reason;
  }
  return WithRole(next, observe::Role::kStandby);
}

absl::StatusOr<TermRecord> ApplyUnfence(const TermRecord& record, const TermHolder& who) {
  METAL_RETURN_IF_ERROR(CheckHolder(record, who));
  TermRecord next = record;
  if (!next.fence.active) return next;
  // A fence never has a higher term than the stored one, except that the file was changed by hand:
  // then it holds.
  if (who.term < next.fence.term) return Stale(record, who);
  next.fence = FenceRecord();
  return WithRole(next, observe::Role::kStandby);
}

}  // namespace metal::node
