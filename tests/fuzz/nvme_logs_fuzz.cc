// Feeds arbitrary bytes to the decoders of NVMe logs other than SMART, as they come and cut or
// filled to the size that each wants: they must answer or reject, never read outside.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "agent/disk/nvme/aws_log.h"
#include "agent/disk/nvme/error_log.h"
#include "agent/disk/nvme/identify.h"
#include "agent/disk/nvme/ocp_log.h"
#include "agent/disk/nvme/self_test_log.h"
#include "agent/disk/nvme/supported_logs.h"

namespace {

using Page = std::vector<std::byte>;

void Check(bool holds) {
  if (!holds) __builtin_trap();
}

void DecodeAll(const Page& page) {
  if (const auto entries = metal::disk::DecodeErrorLog(page); entries.ok()) {
    Check(entries->size() <= metal::disk::kMaxErrorEntries);
    for (const auto& entry : *entries) metal::disk::StatusText(entry.status);
  }
  if (const auto log = metal::disk::DecodeSelfTestLog(page); log.ok()) {
    Check(log->results.size() <= 20);
    for (const auto& each : log->results) {
      metal::disk::SelfTestName(each.test);
      metal::disk::SelfTestResultName(each.result);
    }
  }
  if (const auto ns = metal::disk::DecodeIdentifyNamespace(page); ns.ok()) {
    Check(ns->block_size == 0 || ns->block_size >= 512);
  }
  if (const auto log = metal::disk::DecodeAwsLog(page); log.ok()) {
    Check(log->read_bins.size() <= 64 && log->write_bins.size() <= 64);
  }
  if (const auto log = metal::disk::DecodeOcpLog(page); log.ok()) {
    Check(log->command_timeouts.has_value() == (log->log_version >= 4));
  }
  metal::disk::DecodeSupportedLogs(page).IgnoreError();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  for (const size_t length :
       {size, metal::disk::kErrorEntrySize, metal::disk::kSelfTestLogSize, metal::disk::kOcpLogSize,
        metal::disk::kSupportedLogsSize, metal::disk::kIdentifySize}) {
    Page page(length);
    std::copy_n(bytes.begin(), std::min(length, size), page.begin());
    DecodeAll(page);
  }
  return 0;
}
