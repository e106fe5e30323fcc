// Bytes that a codec cannot guess, for files made by tests. Compiled optimised and without
// sanitizers: tests make gigabytes of them. Threading: pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace metal::testing {

// Writes each step-th byte. `state` is that of std::minstd_rand, 1 to 2147483646. Returns the one
// after the last byte.
uint32_t ScatterBytes(std::span<char> into, size_t step, uint32_t state);

}  // namespace metal::testing
