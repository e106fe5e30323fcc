// The page checksum compiled for one instruction set each; page_checksum.cc chooses. A CPU that
// lacks the set must not call its variant. Threading: pure functions. C types alone: see
// CMakeLists.txt.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace metal::stream {

// Sets hashes[i] for each of `count` adjacent 8 KiB pages: the XOR of the 32 lanes with pd_checksum
// taken as zero, before the block number is mixed in.
using PageHashFunction = void(const unsigned char* pages, size_t count, uint32_t* hashes);
PageHashFunction PageHashesBaseline;
#if defined(__x86_64__)
PageHashFunction PageHashesAvx2;
PageHashFunction PageHashesAvx512;
#endif

}  // namespace metal::stream
