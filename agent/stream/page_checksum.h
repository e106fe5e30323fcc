// PostgreSQL's data page checksum (src/include/storage/checksum_impl.h), hashed in place,
// dispatched to AVX-512/AVX2/portable.
// Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "agent/base/units.h"

namespace metal::stream {

inline constexpr size_t kPageSize = 8192;

// The checksum that the page should carry at `block` (absolute block number in the relation fork).
// REQUIRES: page.size() == kPageSize.
uint16_t PageChecksum(std::span<const std::byte> page, base::BlockNumber block);

enum class PageVerdict : uint8_t {
  kValid,
  kNew,      // pd_upper == 0 and all bytes zero
  kInvalid,  // checksum differs, or pd_upper == 0 with other bytes set
};
PageVerdict VerifyPage(std::span<const std::byte> page, base::BlockNumber block);
base::Lsn PageLsn(std::span<const std::byte> page);

// Block numbers in `pages` (a multiple of kPageSize long) that do not verify; the first page is
// block `first`. Appends to `bad`. The fast path for a whole frame.
void VerifyPages(std::span<const std::byte> pages, base::BlockNumber first,
                 std::vector<base::BlockNumber>& bad);

std::string_view PageChecksumImplementation();  // "avx512", "avx2", "portable"

}  // namespace metal::stream
