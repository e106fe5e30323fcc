#define XXH_INLINE_ALL
#include <xxhash.h>

#include "agent/stream/hash_variants.h"

namespace metal::stream {

uint64_t Xxh3Baseline(const void* data, size_t length) { return XXH3_64bits(data, length); }

}  // namespace metal::stream
