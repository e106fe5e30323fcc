#include "agent/base/status.h"

#include <cerrno>
#include <cstring>

#include "absl/strings/cord.h"

namespace metal::base {
namespace {

constexpr const char* kReasonUrl = "metal.agent/reason";

std::string ErrnoText(int error) {
  char buffer[128];
  return strerror_r(error, buffer, sizeof buffer);
}

}  // namespace

absl::StatusCode ErrnoCode(int error) {
  switch (error) {
    case EIO:
    case EILSEQ:
    case ENODATA:
    // The device is gone. That is no answer to whether a file exists, as NOT_FOUND would be.
    case ENODEV:
    case ENXIO:
    case ENOMEDIUM:
      return absl::StatusCode::kDataLoss;
    case EROFS:
    case EBUSY:
    case ENOTEMPTY:
      return absl::StatusCode::kFailedPrecondition;
    case ENOSPC:
    case EDQUOT:
      return absl::StatusCode::kResourceExhausted;
    case ETIMEDOUT:
      return absl::StatusCode::kDeadlineExceeded;
    default:
      return absl::ErrnoToStatusCode(error);
  }
}

absl::Status ErrnoStatus(int error, std::string_view operation, std::string_view object) {
  return Error(ErrnoCode(error), "{} {}: {}", operation, object, ErrnoText(error));
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), fmt::format("{}: {}", context,
                                                    std::string_view(status.message().data(),
                                                                     status.message().size())));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

absl::Status WithReason(absl::Status status, ErrorReason reason) {
  std::string text = std::move(reason.reason);
  for (const auto& [name, value] : reason.metadata) {
    text += '\n';
    text += name;
    text += '=';
    for (char c : value) text += (c == '\n' || c == '\0') ? ' ' : c;
  }
  status.SetPayload(kReasonUrl, absl::Cord(text));
  return status;
}

std::optional<ErrorReason> GetReason(const absl::Status& status) {
  auto payload = status.GetPayload(kReasonUrl);
  if (!payload.has_value()) return std::nullopt;
  std::string text(*payload);
  ErrorReason reason;
  size_t start = 0;
  bool first = true;
  while (start <= text.size()) {
    size_t end = text.find('\n', start);
    if (end == std::string::npos) end = text.size();
    std::string line = text.substr(start, end - start);
    if (first) {
      reason.reason = line;
      first = false;
    } else if (size_t eq = line.find('='); eq != std::string::npos) {
      reason.metadata[line.substr(0, eq)] = line.substr(eq + 1);
    }
    start = end + 1;
  }
  return reason;
}

}  // namespace metal::base
