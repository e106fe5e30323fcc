// CRC-32C (Castagnoli) as PostgreSQL and backup manifests use it: initial value and final XOR of
// 0xffffffff. ISA-L picks the fastest implementation of the CPU at run time. Threading: pure
// functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace metal::base {

// CRC of `data` appended to bytes whose CRC is `crc` (0 for none).
uint32_t Crc32cExtend(uint32_t crc, std::span<const std::byte> data);
inline uint32_t Crc32c(std::span<const std::byte> data) { return Crc32cExtend(0, data); }

// CRC of A·B from CRC(A), CRC(B) and B's length in bytes. O(log length).
uint32_t Crc32cCombine(uint32_t crc_a, uint32_t crc_b, uint64_t length_b);

}  // namespace metal::base
