#if defined(__x86_64__)

#include "agent/stream/page_checksum_kernel.h"
#include "agent/stream/page_checksum_variants.h"

namespace metal::stream {

typedef uint32_t Vector __attribute__((vector_size(64)));

void PageHashesAvx512(const unsigned char* pages, size_t count, uint32_t* hashes) {
  Kernel<Vector>::HashAll<4>(pages, count, hashes);
}

}  // namespace metal::stream

#endif
