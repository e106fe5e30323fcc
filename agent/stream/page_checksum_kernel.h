// The inner loop of the page checksum, written once on vectors of any width; included by one file
// for each instruction set. Source: PostgreSQL src/include/storage/checksum_impl.h.
//
// A page is 64 rows of 32 words; word j of each row goes into lane j by sum' = (sum ^ v) * prime ^
// ((sum ^ v) >> 17); two rows of zeros follow. One lane depends on itself, so one page is bound by
// the latency of the multiplication. Several pages at a time fill the pipeline.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace metal::stream {
namespace {  // every including file has its own copy, compiled for its own instruction set

constexpr size_t kKernelPageSize = 8192;
constexpr size_t kLanes = 32;
constexpr size_t kRows = kKernelPageSize / (kLanes * sizeof(uint32_t));

alignas(64) constexpr uint32_t kSeeds[kLanes] = {
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756};

// pd_checksum is the low half of word 2 in row 0.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
alignas(64) constexpr uint32_t kFirstRowMask[kLanes] = {
    ~0u, ~0u, 0xFFFF0000u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
    ~0u, ~0u, ~0u,         ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};

// Vector: uint32_t with __attribute__((vector_size(width in bytes))).
template <typename Vector>
struct Kernel {
  static constexpr size_t kWidth = sizeof(Vector);
  static constexpr size_t kVectors = kLanes * sizeof(uint32_t) / kWidth;

  static Vector Load(const void* from) {
    Vector v;
    memcpy(&v, from, sizeof v);
    return v;
  }
  static Vector Mix(Vector sum, Vector v) {
    const Vector t = sum ^ v;
    return (t * 16777619u) ^ (t >> 17);
  }

  template <size_t kPages>
  [[gnu::always_inline]] static void Hash(const unsigned char* pages, uint32_t* hashes) {
    Vector sums[kPages][kVectors];
    for (size_t p = 0; p < kPages; ++p) {
      for (size_t i = 0; i < kVectors; ++i) {
        const size_t at = i * kWidth;
        const Vector seed = Load(reinterpret_cast<const unsigned char*>(kSeeds) + at);
        const Vector mask = Load(reinterpret_cast<const unsigned char*>(kFirstRowMask) + at);
        sums[p][i] = Mix(seed, Load(pages + p * kKernelPageSize + at) & mask);
      }
    }
    for (size_t row = 1; row < kRows; ++row) {
      const unsigned char* from = pages + row * kLanes * sizeof(uint32_t);
      for (size_t p = 0; p < kPages; ++p) {
        for (size_t i = 0; i < kVectors; ++i) {
          sums[p][i] = Mix(sums[p][i], Load(from + p * kKernelPageSize + i * kWidth));
        }
      }
    }
    for (size_t p = 0; p < kPages; ++p) {
      Vector folded = {};
      for (size_t i = 0; i < kVectors; ++i) {
        folded ^= Mix(Mix(sums[p][i], Vector{}), Vector{});
      }
      uint32_t hash = 0;
      for (size_t lane = 0; lane < kWidth / sizeof(uint32_t); ++lane) hash ^= folded[lane];
      hashes[p] = hash;
    }
  }

  template <size_t kPages>
  [[gnu::always_inline]] static void HashAll(const unsigned char* pages, size_t count,
                                             uint32_t* hashes) {
    for (; count >= kPages; count -= kPages, pages += kPages * kKernelPageSize, hashes += kPages) {
      Hash<kPages>(pages, hashes);
    }
    for (; count > 0; --count, pages += kKernelPageSize, ++hashes) Hash<1>(pages, hashes);
  }
};

}  // namespace
}  // namespace metal::stream
