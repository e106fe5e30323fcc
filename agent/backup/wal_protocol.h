// The messages between metal-wal and the agent on the WAL socket: one request, one response, then
// the connection ends. A message is a 4-byte length (little-endian, of the body, 1 to 4096) and a
// body. The request comes with descriptors (SCM_RIGHTS): for a push the WAL file, open for reading;
// for a fetch an empty file, open for writing, and up to kMaxWalSpares more on the same filesystem,
// which the agent may fill with the segments that come next and hand out later. No path is sent.
// Needs the C++ library alone, so that metal-wal starts fast. Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace metal::backup {

inline constexpr uint8_t kWalProtocolVersion = 1;
inline constexpr size_t kWalLengthBytes = 4;
inline constexpr size_t kMaxWalBody = 4096;
inline constexpr size_t kMaxWalRequestName = 255;
inline constexpr size_t kMaxWalSpares = 4;

enum class WalOperation : uint8_t { kPush = 1, kFetch = 2 };

struct WalRequest {
  WalOperation operation = WalOperation::kPush;
  uint64_t system_identifier = 0;  // 0: not known to the client
  std::string name;  // file name without a directory, 1 to 255 bytes; the server judges it
};

enum class WalOutcome : uint8_t {
  kOk = 0,
  kNotFound = 1,  // fetch: the archive does not have the file
  kTryAgain = 2,  // busy, starting, repository not mounted
  kFailed = 3,    // will fail again until somebody acts
};

struct WalResponse {
  WalOutcome outcome = WalOutcome::kFailed;
  bool already_present = false;  // push: the same bytes were archived before
  bool prefetched =
      false;  // fetch: not the given file was filled; a full one comes with this message
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;
  std::string message;  // empty when OK; cut to fit
};

// Length and body. REQUIRES: 1 <= request.name.size() <= kMaxWalRequestName.
std::string EncodeWalRequest(const WalRequest& request);
std::string EncodeWalResponse(const WalResponse& response);

// Length of the body that follows; nullopt unless `prefix` is kWalLengthBytes long and says 1 to
// kMaxWalBody.
std::optional<size_t> DecodeWalLength(std::string_view prefix);
// Bodies. nullopt for another version, an unknown value, a length that does not fit, bytes that are
// left over.
std::optional<WalRequest> DecodeWalRequest(std::string_view body);
std::optional<WalResponse> DecodeWalResponse(std::string_view body);

}  // namespace metal::backup
