// Errors: absl::Status with a message that names the object, an optional machine-readable reason,
// and macros. Message form: "outer: inner: cause. HINT: next step", lower case. Threading: pure
// functions.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"

namespace metal::base {

// Builds a status with a formatted message.
template <typename... Args>
absl::Status Error(absl::StatusCode code, fmt::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, fmt::format(format, std::forward<Args>(args)...));
}

// Status for a failed system call: "<operation> <object>: <strerror>". The one place that maps
// errno to a code: EIO, EILSEQ and ENODATA → DATA_LOSS; EROFS and EBUSY → FAILED_PRECONDITION;
// ENOSPC and EDQUOT → RESOURCE_EXHAUSTED; ETIMEDOUT → DEADLINE_EXCEEDED; otherwise as
// absl::ErrnoToStatusCode.
absl::Status ErrnoStatus(int error, std::string_view operation, std::string_view object);
absl::StatusCode ErrnoCode(int error);

// Prepends "context: " to the message; keeps code and payloads. OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// A machine-readable reason carried by a status (becomes google.rpc.ErrorInfo on the wire).
struct ErrorReason {
  std::string reason;  // UPPER_SNAKE, one of proto/metal/agent/v1/error_reason.proto
  std::map<std::string, std::string> metadata;  // what the message says, for machines
};
// Attaches a reason; replaces an earlier one. REQUIRES: !status.ok(); names and values hold no NUL
// or newline.
absl::Status WithReason(absl::Status status, ErrorReason reason);
std::optional<ErrorReason> GetReason(const absl::Status& status);

}  // namespace metal::base

#define METAL_CONCAT_INNER(a, b) a##b
#define METAL_CONCAT(a, b) METAL_CONCAT_INNER(a, b)

#define METAL_RETURN_IF_ERROR(expression)                                                    \
  do {                                                                                       \
    if (::absl::Status metal_status = (expression); !metal_status.ok()) return metal_status; \
  } while (false)

#define METAL_ASSIGN_OR_RETURN(lhs, expression) \
  METAL_ASSIGN_OR_RETURN_IMPL(METAL_CONCAT(metal_status_or_, __LINE__), lhs, expression)
#define METAL_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expression) \
  auto tmp = (expression);                                \
  if (!tmp.ok()) return std::move(tmp).status();          \
  lhs = *std::move(tmp)
