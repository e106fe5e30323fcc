// What the steps beside the codec cost on one core: page checksum, CRC-32C and XXH3, with the data
// in L2 (one 512 KiB read) and from memory. Every variant that this CPU runs.
#include <cstring>
#include <random>
#include <vector>

#include "agent/base/crc32c.h"
#include "agent/stream/cpu.h"
#include "agent/stream/hash.h"
#include "agent/stream/hash_variants.h"
#include "agent/stream/page_checksum.h"
#include "agent/stream/page_checksum_variants.h"
#include "benchmark/benchmark.h"

namespace metal {
namespace {

constexpr int64_t kInCache = 512 << 10;
constexpr int64_t kInMemory = 256 << 20;

std::vector<std::byte> RandomBytes(int64_t size) {
  std::mt19937_64 random(1);
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  for (size_t at = 0; at < bytes.size(); at += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, sizeof word);
  }
  return bytes;
}

// Runs `step` over the whole buffer in each round.
template <typename Step>
void Measure(benchmark::State& state, Step step) {
  const std::vector<std::byte> bytes = RandomBytes(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(step(std::span<const std::byte>(bytes)));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

template <stream::PageHashFunction* kHash>
void PageHashes(benchmark::State& state) {
  Measure(state, [](std::span<const std::byte> bytes) {
    std::vector<uint32_t> hashes(bytes.size() / stream::kPageSize);
    kHash(reinterpret_cast<const unsigned char*>(bytes.data()), hashes.size(), hashes.data());
    return hashes[0];
  });
}

template <uint64_t (*kHash)(const void*, size_t)>
void Xxh3(benchmark::State& state) {
  Measure(state,
          [](std::span<const std::byte> bytes) { return kHash(bytes.data(), bytes.size()); });
}

void VerifyPages(benchmark::State& state) {
  Measure(state, [](std::span<const std::byte> bytes) {
    std::vector<base::BlockNumber> bad;
    stream::VerifyPages(bytes, 0, bad);
    return bad.size();
  });
}

void Crc32c(benchmark::State& state) {
  Measure(state, [](std::span<const std::byte> bytes) { return base::Crc32c(bytes); });
}

void Memcpy(benchmark::State& state) {
  std::vector<std::byte> target(static_cast<size_t>(state.range(0)));
  Measure(state, [&target](std::span<const std::byte> bytes) {
    std::memcpy(target.data(), bytes.data(), bytes.size());
    return target[0];
  });
}

void Register(const char* name, void (*function)(benchmark::State&)) {
  benchmark::RegisterBenchmark(name, function)->Arg(kInCache)->Arg(kInMemory);
}

}  // namespace
}  // namespace metal

int main(int argc, char** argv) {
  using namespace metal;
  Register("page_checksum/chosen", VerifyPages);
  Register("page_checksum/portable", PageHashes<stream::PageHashesBaseline>);
  Register("xxh3/baseline", Xxh3<stream::Xxh3Baseline>);
#if defined(__x86_64__)
  if (stream::CpuHasAvx2()) {
    Register("page_checksum/avx2", PageHashes<stream::PageHashesAvx2>);
    Register("xxh3/avx2", Xxh3<stream::Xxh3Avx2>);
  }
  if (stream::CpuHasAvx512()) {
    Register("page_checksum/avx512", PageHashes<stream::PageHashesAvx512>);
    Register("xxh3/avx512", Xxh3<stream::Xxh3Avx512>);
  }
#endif
  Register("crc32c", Crc32c);
  Register("memcpy", Memcpy);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
