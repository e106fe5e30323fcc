#include "agent/backup/wal_protocol.h"

#include <bit>
#include <cstring>

namespace metal::backup {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");

// Request body: version, operation, name length (2), system identifier (8), name.
constexpr size_t kRequestFixed = 12;
// Response body: version, outcome, already present, prefetched, message length (4), raw bytes (8),
// stored bytes (8), message.
constexpr size_t kResponseFixed = 24;

template <typename T>
void Put(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

template <typename T>
T Get(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

}  // namespace

std::string EncodeWalRequest(const WalRequest& request) {
  std::string out;
  Put(out, static_cast<uint32_t>(kRequestFixed + request.name.size()));
  Put(out, kWalProtocolVersion);
  Put(out, static_cast<uint8_t>(request.operation));
  Put(out, static_cast<uint16_t>(request.name.size()));
  Put(out, request.system_identifier);
  return out + request.name;
}

std::string EncodeWalResponse(const WalResponse& response) {
  const std::string_view message =
      std::string_view(response.message).substr(0, kMaxWalBody - kResponseFixed);
  std::string out;
  Put(out, static_cast<uint32_t>(kResponseFixed + message.size()));
  Put(out, kWalProtocolVersion);
  Put(out, static_cast<uint8_t>(response.outcome));
  Put(out, static_cast<uint8_t>(response.already_present));
  Put(out, static_cast<uint8_t>(response.prefetched));
  Put(out, static_cast<uint32_t>(message.size()));
  Put(out, response.raw_bytes);
  Put(out, response.stored_bytes);
  return out.append(message);
}

std::optional<size_t> DecodeWalLength(std::string_view prefix) {
  if (prefix.size() != kWalLengthBytes) return std::nullopt;
  const size_t length = Get<uint32_t>(prefix, 0);
  if (length == 0 || length > kMaxWalBody) return std::nullopt;
  return length;
}

std::optional<WalRequest> DecodeWalRequest(std::string_view body) {
  if (body.size() < kRequestFixed || Get<uint8_t>(body, 0) != kWalProtocolVersion)
    return std::nullopt;
  const auto operation = Get<uint8_t>(body, 1);
  const size_t name_length = Get<uint16_t>(body, 2);
  if (operation != static_cast<uint8_t>(WalOperation::kPush) &&
      operation != static_cast<uint8_t>(WalOperation::kFetch)) {
    return std::nullopt;
  }
  if (name_length == 0 || name_length > kMaxWalRequestName ||
      body.size() != kRequestFixed + name_length) {
    return std::nullopt;
  }
  return WalRequest{static_cast<WalOperation>(operation), Get<uint64_t>(body, 4),
                    std::string(body.substr(kRequestFixed))};
}

std::optional<WalResponse> DecodeWalResponse(std::string_view body) {
  if (body.size() < kResponseFixed || Get<uint8_t>(body, 0) != kWalProtocolVersion)
    return std::nullopt;
  const auto outcome = Get<uint8_t>(body, 1);
  const auto already_present = Get<uint8_t>(body, 2);
  const auto prefetched = Get<uint8_t>(body, 3);
  const size_t message_length = Get<uint32_t>(body, 4);
  if (outcome > static_cast<uint8_t>(WalOutcome::kFailed) || already_present > 1 ||
      prefetched > 1) {
    return std::nullopt;
  }
  if (body.size() != kResponseFixed + message_length) return std::nullopt;
  WalResponse response;
  response.outcome = static_cast<WalOutcome>(outcome);
  response.already_present = already_present == 1;
  response.prefetched = prefetched == 1;
  response.raw_bytes = Get<uint64_t>(body, 8);
  response.stored_bytes = Get<uint64_t>(body, 16);
  response.message = std::string(body.substr(kResponseFixed));
  return response;
}

}  // namespace metal::backup
