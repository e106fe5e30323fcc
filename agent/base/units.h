// Types that carry their unit: Lsn, ByteCount, TimelineId, BlockNumber. Pure values.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace metal::base {

// A byte position in the write-ahead log. 0 means "none" (PostgreSQL's InvalidXLogRecPtr).
struct Lsn {
  uint64_t value = 0;
  auto operator<=>(const Lsn&) const = default;
  bool valid() const { return value != 0; }
  // PostgreSQL's text form "16/B374D848".
  std::string ToString() const;
  // nullopt unless text is exactly "X/X" with hexadecimal halves of 1 to 8 digits.
  static std::optional<Lsn> Parse(std::string_view text);
};
// Bytes from `from` to `to`; 0 when `to` is behind.
inline uint64_t LsnDistance(Lsn from, Lsn to) {
  return to.value > from.value ? to.value - from.value : 0;
}

using TimelineId = uint32_t;
using BlockNumber = uint32_t;

struct ByteCount {
  uint64_t value = 0;
  auto operator<=>(const ByteCount&) const = default;
  ByteCount& operator+=(ByteCount other) {
    value += other.value;
    return *this;
  }
  friend ByteCount operator+(ByteCount a, ByteCount b) { return {a.value + b.value}; }
  // "3.4 GiB", "512 KiB", "17 B".
  std::string ToString() const;
  // Accepts "123", "8KiB", "8kB", "1MiB", "1GiB", "2TiB" (binary units, case-insensitive, optional
  // B/iB).
  static std::optional<ByteCount> Parse(std::string_view text);
};

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

// WAL file name of the segment that holds `lsn`: "TTTTTTTTXXXXXXXXYYYYYYYY".
// REQUIRES: segment_size is a power of two from 1 MiB to 1 GiB.
std::string WalFileName(TimelineId timeline, Lsn lsn, uint64_t segment_size);
// Timeline and first LSN of a segment file name; nullopt when it is not one (24 upper-case hex
// digits).
struct WalSegment {
  TimelineId timeline = 0;
  Lsn start;
};
std::optional<WalSegment> ParseWalFileName(std::string_view name, uint64_t segment_size);

}  // namespace metal::base
