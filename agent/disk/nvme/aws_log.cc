#include "agent/disk/nvme/aws_log.h"

#include <algorithm>

#include "agent/base/status.h"
#include "agent/disk/nvme/little_endian.h"

namespace metal::disk {
namespace {

constexpr uint32_t kEbsMagic = 0x3c23b510;
constexpr uint32_t kInstanceStoreMagic = 0xec2c0d7e;
constexpr size_t kMaxBins = 64;
constexpr size_t kBinSize = 24;
constexpr size_t kReadBinsOffset = 512;
constexpr size_t kWriteBinsOffset = kReadBinsOffset + 8 + kMaxBins * kBinSize;

absl::Duration LoadMicroseconds(std::span<const std::byte> page, size_t offset) {
  const auto value = LoadLe<uint64_t>(page, offset);
  return absl::Microseconds(static_cast<int64_t>(std::min<uint64_t>(value, INT64_MAX)));
}

std::vector<AwsLatencyBin> LoadBins(std::span<const std::byte> page, size_t offset) {
  const auto count =
      static_cast<size_t>(std::min<uint64_t>(LoadLe<uint64_t>(page, offset), kMaxBins));
  std::vector<AwsLatencyBin> bins;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = offset + 8 + i * kBinSize;
    bins.push_back({.lower_us = LoadLe<uint64_t>(page, at),
                    .upper_us = LoadLe<uint64_t>(page, at + 8),
                    .count = LoadLe<uint32_t>(page, at + 16)});
  }
  return bins;
}

}  // namespace

absl::StatusOr<AwsLog> DecodeAwsLog(std::span<const std::byte> page) {
  if (page.size() != kAwsLogSize) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode Amazon's log: {} bytes instead of {}", page.size(), kAwsLogSize);
  }
  const auto magic = LoadLe<uint32_t>(page, 0);
  if (magic != kEbsMagic && magic != kInstanceStoreMagic) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "decode Amazon's log: unknown magic number {:#010x}", magic);
  }
  AwsLog log;
  log.instance_store = magic == kInstanceStoreMagic;
  log.read_ops = LoadLe<uint64_t>(page, 8);
  log.write_ops = LoadLe<uint64_t>(page, 16);
  log.read_bytes = LoadLe<uint64_t>(page, 24);
  log.write_bytes = LoadLe<uint64_t>(page, 32);
  log.read_time = LoadMicroseconds(page, 40);
  log.write_time = LoadMicroseconds(page, 48);
  if (!log.instance_store) {
    log.volume_over_iops = LoadMicroseconds(page, 56);
    log.volume_over_throughput = LoadMicroseconds(page, 64);
  }
  log.instance_over_iops = LoadMicroseconds(page, 72);
  log.instance_over_throughput = LoadMicroseconds(page, 80);
  log.queue_length = LoadLe<uint64_t>(page, 88);
  log.read_bins = LoadBins(page, kReadBinsOffset);
  log.write_bins = LoadBins(page, kWriteBinsOffset);
  return log;
}

}  // namespace metal::disk
