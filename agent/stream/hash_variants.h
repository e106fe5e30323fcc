// XXH3 compiled for one instruction set each; hash.cc chooses. A CPU that lacks the set must not
// call its variant. Threading: pure functions. C types alone: see CMakeLists.txt.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace metal::stream {

uint64_t Xxh3Baseline(const void* data, size_t length);  // SSE2 on x86-64, NEON on arm64
#if defined(__x86_64__)
uint64_t Xxh3Avx2(const void* data, size_t length);
uint64_t Xxh3Avx512(const void* data, size_t length);
#endif

}  // namespace metal::stream
