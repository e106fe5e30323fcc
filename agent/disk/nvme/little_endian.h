// Reads little-endian integers out of log pages.
// Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace metal::disk {

// REQUIRES: offset + sizeof(T) <= data.size().
template <typename T>
T LoadLe(std::span<const std::byte> data, size_t offset) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= std::to_integer<uint64_t>(data[offset + i]) << (8 * i);
  }
  return static_cast<T>(value);
}

// A 128-bit counter, cut at 2^64 − 1.
inline uint64_t LoadLe128Saturated(std::span<const std::byte> data, size_t offset) {
  return LoadLe<uint64_t>(data, offset + 8) != 0 ? UINT64_MAX : LoadLe<uint64_t>(data, offset);
}

}  // namespace metal::disk
