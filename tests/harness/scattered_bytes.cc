#include "tests/harness/scattered_bytes.h"

namespace metal::testing {

[[gnu::optimize("O2"), gnu::no_sanitize("address", "thread", "undefined")]] uint32_t ScatterBytes(
    std::span<char> into, size_t step, uint32_t state) {
  char* const bytes = into.data();
  const size_t size = into.size();
  for (size_t i = 0; i < size; i += step) {
    state = static_cast<uint32_t>(uint64_t{state} * 48271 % 2147483647);
    bytes[i] = static_cast<char>(state);
  }
  return state;
}

}  // namespace metal::testing
