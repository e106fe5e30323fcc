#include "agent/disk/nvme/log_reader.h"

#include <algorithm>

#include "agent/base/status.h"
#include "agent/disk/nvme/supported_logs.h"

namespace metal::disk {
namespace {

constexpr uint32_t kTransfer = 4096;  // what every drive takes and the helper carries
constexpr size_t kMostEventBytes = 64 * 1024;
constexpr uint8_t kEstablishContext = 1, kReleaseContext = 2;
// A reporting context that is not released keeps other tools from the log.
constexpr absl::Duration kReleaseTime = absl::Milliseconds(100);

absl::Status NoTimeLeft() {
  return base::Error(absl::StatusCode::kDeadlineExceeded, "no time was left to ask the drive");
}

}  // namespace

absl::StatusOr<std::vector<std::byte>> LogReader::Read(const NvmeLogRequest& request) {
  if (TimeLeft() <= absl::ZeroDuration()) return NoTimeLeft();
  return helper_.ReadNvmeLog(controller_, request, TimeLeft());
}

absl::StatusOr<SmartLog> LogReader::ReadSmart() {
  METAL_ASSIGN_OR_RETURN(const auto page, Read({.log_id = kSmartLogId, .length = kSmartLogSize}));
  return DecodeSmartLog(page);
}

absl::StatusOr<IdentifyController> LogReader::ReadController() {
  if (TimeLeft() <= absl::ZeroDuration()) return NoTimeLeft();
  METAL_ASSIGN_OR_RETURN(const auto data, helper_.NvmeIdentify(controller_, TimeLeft()));
  return DecodeIdentifyController(data);
}

absl::StatusOr<IdentifyNamespace> LogReader::ReadNamespace(uint32_t name_space) {
  if (TimeLeft() <= absl::ZeroDuration()) return NoTimeLeft();
  METAL_ASSIGN_OR_RETURN(const auto data,
                         helper_.NvmeIdentifyNamespace(controller_, name_space, TimeLeft()));
  return DecodeIdentifyNamespace(data);
}

absl::StatusOr<std::bitset<256>> LogReader::ReadSupportedLogs() {
  METAL_ASSIGN_OR_RETURN(const auto page,
                         Read({.log_id = kSupportedLogsId, .length = kSupportedLogsSize}));
  return DecodeSupportedLogs(page);
}

absl::StatusOr<std::vector<ErrorEntry>> LogReader::ReadErrors(int entries) {
  const auto count = std::clamp<size_t>(static_cast<size_t>(entries), 1, kMaxErrorEntries);
  METAL_ASSIGN_OR_RETURN(
      const auto page,
      Read({.log_id = kErrorLogId, .length = static_cast<uint32_t>(count * kErrorEntrySize)}));
  return DecodeErrorLog(page);
}

absl::StatusOr<SelfTestLog> LogReader::ReadSelfTests() {
  METAL_ASSIGN_OR_RETURN(const auto page,
                         Read({.log_id = kSelfTestLogId, .length = kSelfTestLogSize}));
  return DecodeSelfTestLog(page);
}

absl::StatusOr<OcpLog> LogReader::ReadOcp() {
  METAL_ASSIGN_OR_RETURN(const auto page, Read({.log_id = kOcpLogId, .length = kOcpLogSize}));
  return DecodeOcpLog(page);
}

absl::StatusOr<AwsLog> LogReader::ReadAws(uint32_t name_space) {
  METAL_ASSIGN_OR_RETURN(
      const auto page,
      Read({.log_id = kAwsLogId, .length = kAwsLogSize, .name_space = name_space}));
  return DecodeAwsLog(page);
}

// The log's header. A context that an earlier reader left, which may have been this one before it
// died, is taken over.
absl::StatusOr<std::vector<std::byte>> LogReader::OpenPersistentEvents() {
  const NvmeLogRequest establish{.log_id = kPersistentEventLogId,
                                 .length = kPersistentEventHeaderSize,
                                 .action = kEstablishContext};
  auto header = Read(establish);
  if (!absl::IsFailedPrecondition(header.status())) return header;
  ReleasePersistentEvents();
  return Read(establish);
}

void LogReader::ReleasePersistentEvents() {
  helper_
      .ReadNvmeLog(controller_,
                   {.log_id = kPersistentEventLogId,
                    .length = kPersistentEventHeaderSize,
                    .action = kReleaseContext},
                   std::max(TimeLeft(), kReleaseTime))
      .status()
      .IgnoreError();
}

absl::StatusOr<PersistentEventLog> LogReader::ReadPersistentEvents() {
  METAL_ASSIGN_OR_RETURN(std::vector<std::byte> bytes, OpenPersistentEvents());
  const auto header = DecodePersistentEvents(bytes);
  const size_t wanted =
      header.ok() ? static_cast<size_t>(std::min<uint64_t>(header->length, kMostEventBytes)) : 0;
  while (bytes.size() < wanted) {
    const size_t left = (wanted - bytes.size() + 3) / 4 * 4;
    auto part = Read({.log_id = kPersistentEventLogId,
                      .length = static_cast<uint32_t>(std::min<size_t>(left, kTransfer)),
                      .offset = bytes.size()});
    if (!part.ok() || part->empty()) break;
    bytes.insert(bytes.end(), part->begin(), part->end());
  }
  ReleasePersistentEvents();
  return DecodePersistentEvents(bytes);
}

}  // namespace metal::disk
