#include "agent/rpc/grpc_status.h"

#include <cstdint>

namespace metal::rpc {
namespace {

constexpr const char* kErrorInfoType = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr const char* kDomain = "metal.agent";

// Protobuf wire format, as far as three small messages need it (google/rpc/status.proto,
// error_details.proto).
void AppendVarint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  out += static_cast<char>(value);
}

void AppendBytes(std::string& out, uint32_t field, const std::string& bytes) {
  AppendVarint(out, (uint64_t{field} << 3) | 2);
  AppendVarint(out, bytes.size());
  out += bytes;
}

std::string EncodeErrorInfo(const base::ErrorReason& reason) {
  std::string info;
  AppendBytes(info, 1, reason.reason);
  AppendBytes(info, 2, kDomain);
  for (const auto& [name, value] : reason.metadata) {
    std::string entry;
    AppendBytes(entry, 1, name);
    AppendBytes(entry, 2, value);
    AppendBytes(info, 3, entry);
  }
  return info;
}

}  // namespace

std::string EncodeErrorDetails(const absl::Status& status, const base::ErrorReason& reason) {
  std::string any;
  AppendBytes(any, 1, kErrorInfoType);
  AppendBytes(any, 2, EncodeErrorInfo(reason));
  std::string details;
  AppendVarint(details, 1 << 3);
  AppendVarint(details, static_cast<uint64_t>(status.code()));
  AppendBytes(details, 2, std::string(status.message()));
  AppendBytes(details, 3, any);
  return details;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message(status.message());
  if (auto reason = base::GetReason(status)) {
    return grpc::Status(code, message, EncodeErrorDetails(status, *reason));
  }
  return grpc::Status(code, message);
}

}  // namespace metal::rpc
