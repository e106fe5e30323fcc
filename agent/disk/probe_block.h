// The stamp of a written probe block: says who wrote which block when, so that a block read back
// proves that the write reached its place: a lost, misdirected or torn write is found although the
// device reported none.
// Layout (little-endian): magic "METALPRB", version u32 = 1, block u32, sequence u64, node 64
// bytes, role 64 bytes (cut, NUL-padded), a pattern grown from the sequence, CRC-32C of all before
// it in the last 4 bytes.
// Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "agent/disk/probe_device.h"

namespace metal::disk {

struct ProbeStamp {
  std::string_view node;
  std::string_view role;
  uint32_t block = 0;
  uint64_t sequence = 0;
};

using ProbeBlock = std::span<std::byte, kProbeBlockSize>;

void StampBlock(const ProbeStamp& stamp, ProbeBlock block);

struct BlockProblem {
  bool lost_write = false;  // whole, but not what was written here last; else the bytes are wrong
  std::string text;  // "checksum mismatch", "misdirected write: holds block 7", "lost write: holds
                     // sequence 3, 9 was written"
};
// nullopt when the block holds what `expected`'s writer wrote, with this sequence or a later one.
std::optional<BlockProblem> CheckBlock(const ProbeStamp& expected,
                                       std::span<const std::byte, kProbeBlockSize> block);

}  // namespace metal::disk
