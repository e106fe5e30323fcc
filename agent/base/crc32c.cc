#include "agent/base/crc32c.h"

#include <array>

#include "isa-l/crc.h"

namespace metal::base {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78u;  // reflected Castagnoli

// a·b modulo the polynomial, both in reflected bit order (bit 31 is x^0).
constexpr uint32_t MultiplyModP(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t mask = 0x80000000u; mask != 0; mask >>= 1) {
    if (a & mask) product ^= b;
    b = (b & 1) ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

// x^(8·2^k) modulo the polynomial, k = 0 … 63.
constexpr std::array<uint32_t, 64> MakePowers() {
  std::array<uint32_t, 64> powers{};
  uint32_t power = 0x80000000u >> 8;  // x^8
  for (auto& entry : powers) {
    entry = power;
    power = MultiplyModP(power, power);
  }
  return powers;
}
constexpr std::array<uint32_t, 64> kPowers = MakePowers();

}  // namespace

uint32_t Crc32cExtend(uint32_t crc, std::span<const std::byte> data) {
  constexpr size_t kChunk = size_t{1} << 30;  // ISA-L takes the length as int
  while (!data.empty()) {
    const size_t length = data.size() < kChunk ? data.size() : kChunk;
    auto* bytes = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(data.data()));
    crc = ~crc32_iscsi(bytes, static_cast<int>(length), ~crc);
    data = data.subspan(length);
  }
  return crc;
}

uint32_t Crc32cCombine(uint32_t crc_a, uint32_t crc_b, uint64_t length_b) {
  for (size_t k = 0; length_b != 0; ++k, length_b >>= 1) {
    if (length_b & 1) crc_a = MultiplyModP(kPowers[k], crc_a);
  }
  return crc_a ^ crc_b;
}

}  // namespace metal::base
