#include "agent/disk/probe_block.h"

#include <algorithm>
#include <cstring>

#include "agent/base/crc32c.h"
#include "agent/disk/nvme/little_endian.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr std::string_view kMagic = "METALPRB";
constexpr uint32_t kVersion = 1;
constexpr size_t kVersionAt = 8, kBlockAt = 12, kSequenceAt = 16, kNodeAt = 24, kRoleAt = 88;
constexpr size_t kTextSize = 64;
constexpr size_t kPatternAt = kRoleAt + kTextSize;
constexpr size_t kCrcAt = kProbeBlockSize - 4;

template <typename T>
void StoreLe(ProbeBlock block, size_t offset, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    block[offset + i] = static_cast<std::byte>(value >> (8 * i));
  }
}

std::string_view Cut(std::string_view text) { return text.substr(0, kTextSize); }

void StoreText(ProbeBlock block, size_t offset, std::string_view text) {
  std::memset(&block[offset], 0, kTextSize);
  std::memcpy(&block[offset], Cut(text).data(), Cut(text).size());
}

bool HoldsText(std::span<const std::byte> block, size_t offset, std::string_view text) {
  const std::string_view cut = Cut(text);
  return std::memcmp(&block[offset], cut.data(), cut.size()) == 0 &&
         (cut.size() == kTextSize || block[offset + cut.size()] == std::byte{0});
}

}  // namespace

void StampBlock(const ProbeStamp& stamp, ProbeBlock block) {
  std::memcpy(block.data(), kMagic.data(), kMagic.size());
  StoreLe(block, kVersionAt, kVersion);
  StoreLe(block, kBlockAt, stamp.block);
  StoreLe(block, kSequenceAt, stamp.sequence);
  StoreText(block, kNodeAt, stamp.node);
  StoreText(block, kRoleAt, stamp.role);
  uint64_t pattern = stamp.sequence * 0x9e3779b97f4a7c15u + stamp.block;
  for (size_t at = kPatternAt; at < kCrcAt; at += 4) {  // xorshift: differs in every sector
    pattern ^= pattern << 13;
    pattern ^= pattern >> 7;
    pattern ^= pattern << 17;
    StoreLe(block, at, static_cast<uint32_t>(pattern));
  }
  StoreLe(block, kCrcAt, base::Crc32c(block.first(kCrcAt)));
}

std::optional<BlockProblem> CheckBlock(const ProbeStamp& expected,
                                       std::span<const std::byte, kProbeBlockSize> block) {
  if (std::memcmp(block.data(), kMagic.data(), kMagic.size()) != 0 ||
      LoadLe<uint32_t>(block, kVersionAt) != kVersion) {
    return BlockProblem{true, "lost write: holds no stamp"};
  }
  if (LoadLe<uint32_t>(block, kCrcAt) != base::Crc32c(block.first(kCrcAt))) {
    return BlockProblem{false, "checksum mismatch"};
  }
  if (!HoldsText(block, kNodeAt, expected.node) || !HoldsText(block, kRoleAt, expected.role)) {
    return BlockProblem{true, "holds the stamp of another node or role"};
  }
  const auto number = LoadLe<uint32_t>(block, kBlockAt);
  if (number != expected.block) {
    return BlockProblem{true, fmt::format("misdirected write: holds block {}", number)};
  }
  const auto sequence = LoadLe<uint64_t>(block, kSequenceAt);
  if (sequence < expected.sequence) {
    return BlockProblem{true, fmt::format("lost write: holds sequence {}, {} was written", sequence,
                                          expected.sequence)};
  }
  return std::nullopt;
}

}  // namespace metal::disk
