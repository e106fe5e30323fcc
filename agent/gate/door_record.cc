#include "agent/gate/door_record.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <span>

#include "agent/base/crc32c.h"
#include "agent/base/status.h"
#include "agent/base/text_map.h"

namespace metal::gate {
namespace {

constexpr std::string_view kFirstLine = "metal-door 1\n";
constexpr std::string_view kChecksumKey = "crc32c=";
constexpr size_t kRequestsKept = 16;
constexpr size_t kLongestHost = 255;

absl::Status Damaged(std::string_view what) {
  return base::Error(absl::StatusCode::kDataLoss, "door record: {}", what);
}

uint32_t Checksum(std::string_view text) {
  return base::Crc32c(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

template <typename T>
bool ParseNumber(const std::map<std::string, std::string>& values, const std::string& key, T& out,
                 int radix = 10) {
  const auto found = values.find(key);
  if (found == values.end() || found->second.empty()) return false;
  const char* const end = found->second.data() + found->second.size();
  const auto [next, error] = std::from_chars(found->second.data(), end, out, radix);
  return error == std::errc() && next == end;
}

// Times as microseconds since the epoch; the infinite past as 0.
int64_t Micros(absl::Time time) {
  return time == absl::InfinitePast() ? 0 : absl::ToUnixMicros(time);
}
absl::Time TimeOf(int64_t micros) {
  return micros == 0 ? absl::InfinitePast() : absl::FromUnixMicros(micros);
}

std::string Joined(const std::vector<std::string>& ids) {
  std::string text;
  for (const std::string& id : ids) text += (text.empty() ? "" : "\n") + id;
  return text;
}
std::vector<std::string> Split(std::string_view text) {
  std::vector<std::string> ids;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    ids.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return ids;
}

absl::Status Refused(const DoorRecord& record, std::string reason, std::string message) {
  return base::WithReason(absl::FailedPreconditionError(std::move(message)),
                          {.reason = std::move(reason),
                           .metadata = {{"stored_term", fmt::format("{}", record.term)},
                                        {"orchestrator_id", record.orchestrator_id}}});
}

DoorRecord Taken(const DoorRecord& record, const Orderer& orderer) {
  DoorRecord next = record;
  next.term = orderer.term;
  next.orchestrator_id = orderer.orchestrator_id;
  if (!orderer.request_id.empty()) next.requests.push_back(orderer.request_id);
  if (next.requests.size() > kRequestsKept) next.requests.erase(next.requests.begin());
  return next;
}

}  // namespace

std::string Target::ToString() const {
  const bool bare_ipv6 = !host.starts_with('/') && host.find(':') != std::string::npos;
  return bare_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

absl::Status CheckTarget(const Target& target) {
  // What a host name, an address and a sane path are made of. A comma would be a list of servers.
  const auto allowed = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x80 || std::isalnum(byte) != 0 ||
           std::string_view("._-:/+~%").find(c) != std::string_view::npos;
  };
  const bool path = target.host.starts_with('/');
  if (target.host.empty() || target.host.size() > kLongestHost ||
      !std::ranges::all_of(target.host, allowed) ||
      (!path && target.host.find('/') != std::string::npos)) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "host \"{}\" is no server that a door can lead to. HINT: a host name, an "
                       "address, or the directory of a unix socket",
                       target.host.substr(0, kLongestHost));
  }
  if (target.port < 1 || target.port > 65535) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "port {} of {} is no port. HINT: 1 to 65535", target.port, target.host);
  }
  return absl::OkStatus();
}

std::string EncodeDoorRecord(const DoorRecord& record) {
  std::string text(kFirstLine);
  text += base::EncodeMap({
      {"host", record.target.host},
      {"port", fmt::format("{}", record.target.port)},
      {"held", record.held ? "1" : "0"},
      {"held_since", fmt::format("{}", Micros(record.held_since))},
      {"held_until", fmt::format("{}", Micros(record.held_until))},
      {"held_for", fmt::format("{}", absl::ToInt64Microseconds(record.held_for))},
      {"term", fmt::format("{}", record.term)},
      {"orchestrator", record.orchestrator_id},
      {"requests", Joined(record.requests)},
  });
  return text + fmt::format("{}{:08x}\n", kChecksumKey, Checksum(text));
}

absl::StatusOr<DoorRecord> DecodeDoorRecord(std::string_view text) {
  if (!text.starts_with(kFirstLine)) return Damaged("not of a known version");
  const size_t checksum_at = text.rfind(kChecksumKey);
  if (checksum_at == std::string_view::npos || text[checksum_at - 1] != '\n' || text.back() != '\n')
    return Damaged("cut");
  const std::string_view body = text.substr(0, checksum_at);
  uint32_t checksum = 0;
  if (!ParseNumber(base::DecodeMap(text.substr(checksum_at)), "crc32c", checksum, 16) ||
      checksum != Checksum(body)) {
    return Damaged("wrong checksum");
  }
  const auto values = base::DecodeMap(body.substr(kFirstLine.size()));
  DoorRecord record;
  int held = 0;
  int64_t since = 0, until = 0, length = 0;
  if (!ParseNumber(values, "port", record.target.port) || !ParseNumber(values, "held", held) ||
      !ParseNumber(values, "held_since", since) || !ParseNumber(values, "held_until", until) ||
      !ParseNumber(values, "held_for", length) || !ParseNumber(values, "term", record.term) ||
      !values.contains("host") || !values.contains("orchestrator") ||
      !values.contains("requests")) {
    return Damaged("a value is missing");
  }
  record.target.host = values.at("host");
  record.held = held != 0;
  record.held_since = TimeOf(since);
  record.held_until = TimeOf(until);
  record.held_for = absl::Microseconds(length);
  record.orchestrator_id = values.at("orchestrator");
  record.requests = Split(values.at("requests"));
  return record;
}

Asked WasAsked(const DoorRecord& record, const std::string& request_id) {
  if (request_id.empty() || std::ranges::find(record.requests, request_id) == record.requests.end())
    return Asked::kNew;
  return record.requests.back() == request_id ? Asked::kLast : Asked::kSuperseded;
}

absl::Status CheckOrder(const DoorRecord& record, const Orderer& orderer) {
  if (orderer.term == 0 || orderer.orchestrator_id.empty()) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "an order to a door needs a term (1 or more) and an orchestrator");
  }
  if (orderer.term < record.term) {
    return Refused(
        record, "STALE_TERM",
        fmt::format("term {} of {} is stale: the door was last told by term {} of {}. "
                    "HINT: begin a higher term",
                    orderer.term, orderer.orchestrator_id, record.term, record.orchestrator_id));
  }
  if (orderer.term == record.term && orderer.orchestrator_id != record.orchestrator_id) {
    return Refused(record, "TERM_HELD",
                   fmt::format("term {} belongs to {}, not to {}. HINT: begin a higher term",
                               record.term, record.orchestrator_id, orderer.orchestrator_id));
  }
  if (WasAsked(record, orderer.request_id) == Asked::kSuperseded) {
    return Refused(record, "REQUEST_SUPERSEDED",
                   fmt::format("request {} was taken before, and the door was told otherwise "
                               "since. HINT: order it anew, with a new request_id",
                               orderer.request_id));
  }
  return absl::OkStatus();
}

DoorRecord ApplyHold(const DoorRecord& record, const Orderer& orderer, absl::Duration hold_for,
                     absl::Time now) {
  DoorRecord next = Taken(record, orderer);
  // As it is stored, so that it is the same after a restart.
  const absl::Time begin = absl::FromUnixMicros(absl::ToUnixMicros(now));
  if (!next.held) next.held_since = begin;
  next.held = true;
  next.held_for = hold_for;
  next.held_until = begin + hold_for;
  return next;
}

DoorRecord ApplyRelease(const DoorRecord& record, const Orderer& orderer, const Target& target) {
  DoorRecord next = ApplyExpiry(Taken(record, orderer));
  next.target = target;
  return next;
}

DoorRecord ApplyExpiry(const DoorRecord& record) {
  DoorRecord next = record;
  next.held = false;
  next.held_since = next.held_until = absl::InfinitePast();
  next.held_for = absl::ZeroDuration();
  return next;
}

absl::Duration HoldLeft(const DoorRecord& record, absl::Time now) {
  if (!record.held) return absl::ZeroDuration();
  return std::clamp(record.held_until - now, absl::ZeroDuration(),
                    std::max(record.held_for, absl::ZeroDuration()));
}

}  // namespace metal::gate
