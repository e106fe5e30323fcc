#include "agent/stream/hash.h"

#include "agent/stream/cpu.h"
#include "agent/stream/hash_variants.h"

namespace metal::stream {
namespace {

struct Variant {
  uint64_t (*hash)(const void* data, size_t length);
  std::string_view name;
};

Variant Choose() {
#if defined(__x86_64__)
  if (CpuHasAvx512()) return {Xxh3Avx512, "avx512"};
  if (CpuHasAvx2()) return {Xxh3Avx2, "avx2"};
  return {Xxh3Baseline, "sse2"};
#else
  return {Xxh3Baseline, "portable"};
#endif
}

const Variant kVariant = Choose();

}  // namespace

uint64_t Xxh3(std::span<const std::byte> data) { return kVariant.hash(data.data(), data.size()); }

std::string_view Xxh3Implementation() { return kVariant.name; }

}  // namespace metal::stream
