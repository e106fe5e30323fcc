#include "agent/stream/page_checksum.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "agent/base/check.h"
#include "agent/stream/cpu.h"
#include "agent/stream/page_checksum_variants.h"

namespace metal::stream {
namespace {

// Where PageHeaderData (PostgreSQL src/include/storage/bufpage.h) keeps its fields.
constexpr size_t kLsnHighAt = 0;
constexpr size_t kLsnLowAt = 4;
constexpr size_t kChecksumAt = 8;
constexpr size_t kUpperAt = 14;

struct Variant {
  PageHashFunction* hash_pages;
  std::string_view name;
};

Variant Choose() {
#if defined(__x86_64__)
  if (CpuHasAvx512()) return {PageHashesAvx512, "avx512"};
  if (CpuHasAvx2()) return {PageHashesAvx2, "avx2"};
#endif
  return {PageHashesBaseline, "portable"};
}

const Variant kVariant = Choose();

template <typename T>
T Field(const std::byte* page, size_t at) {
  T value;
  std::memcpy(&value, page + at, sizeof value);
  return value;
}

const unsigned char* Bytes(std::span<const std::byte> data) {
  return reinterpret_cast<const unsigned char*>(data.data());
}

// The block number makes a page written to the wrong place invalid; the result is never 0.
uint16_t Finish(uint32_t hash, base::BlockNumber block) {
  return static_cast<uint16_t>((hash ^ block) % 65535 + 1);
}

bool AllZero(std::span<const std::byte> page) {
  return page[0] == std::byte{0} && std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
}

PageVerdict Judge(std::span<const std::byte> page, uint32_t hash, base::BlockNumber block) {
  if (Field<uint16_t>(page.data(), kUpperAt) == 0) {
    return AllZero(page) ? PageVerdict::kNew : PageVerdict::kInvalid;
  }
  return Field<uint16_t>(page.data(), kChecksumAt) == Finish(hash, block) ? PageVerdict::kValid
                                                                          : PageVerdict::kInvalid;
}

}  // namespace

uint16_t PageChecksum(std::span<const std::byte> page, base::BlockNumber block) {
  METAL_CHECK(page.size() == kPageSize);
  uint32_t hash = 0;
  kVariant.hash_pages(Bytes(page), 1, &hash);
  return Finish(hash, block);
}

PageVerdict VerifyPage(std::span<const std::byte> page, base::BlockNumber block) {
  METAL_CHECK(page.size() == kPageSize);
  uint32_t hash = 0;
  kVariant.hash_pages(Bytes(page), 1, &hash);
  return Judge(page, hash, block);
}

base::Lsn PageLsn(std::span<const std::byte> page) {
  METAL_CHECK(page.size() == kPageSize);
  return {uint64_t{Field<uint32_t>(page.data(), kLsnHighAt)} << 32 |
          Field<uint32_t>(page.data(), kLsnLowAt)};
}

void VerifyPages(std::span<const std::byte> pages, base::BlockNumber first,
                 std::vector<base::BlockNumber>& bad) {
  METAL_CHECK(pages.size() % kPageSize == 0);
  std::array<uint32_t, 128> hashes;
  while (!pages.empty()) {
    const size_t count = std::min(pages.size() / kPageSize, hashes.size());
    kVariant.hash_pages(Bytes(pages), count, hashes.data());
    for (size_t i = 0; i < count; ++i) {
      const auto block = static_cast<base::BlockNumber>(first + i);
      if (Judge(pages.subspan(i * kPageSize, kPageSize), hashes[i], block) ==
          PageVerdict::kInvalid) {
        bad.push_back(block);
      }
    }
    pages = pages.subspan(count * kPageSize);
    first += static_cast<base::BlockNumber>(count);
  }
}

std::string_view PageChecksumImplementation() { return kVariant.name; }

}  // namespace metal::stream
