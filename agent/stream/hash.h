// XXH3 64-bit of a buffer, dispatched at run time to AVX-512, AVX2 or SSE2. Same value on every
// CPU.
// Threading: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace metal::stream {

uint64_t Xxh3(std::span<const std::byte> data);
std::string_view Xxh3Implementation();  // "avx512", "avx2", "sse2"

}  // namespace metal::stream
