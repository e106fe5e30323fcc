// Whether this machine can map the shared memory that a server asks for when it starts: PostgreSQL
// itself finds out only then. Source: PostgreSQL, src/backend/port/sysv_shmem.c; Linux, "Overcommit
// Accounting": without vm.overcommit_memory = 1 no mapping may be larger than memory and swap.
// Threading: pure functions, but for ReadMemoryFacts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace metal::pg {

struct MemoryFacts {
  uint64_t kib = 0, swap_kib = 0;
  uint64_t huge_pages = 0, huge_page_kib = 0;  // of the default size, used or free
  bool maps_anything = false;                  // vm.overcommit_memory = 1
};

// Text of /proc/meminfo; nullopt when it does not say how much memory there is.
std::optional<MemoryFacts> ParseMemInfo(std::string_view text);
std::optional<MemoryFacts> ReadMemoryFacts();

// In PostgreSQL's words why `mib` cannot be mapped; empty: it can.
std::string WhyNotMapped(uint64_t mib, const MemoryFacts& facts);
// The same of that many huge pages, with huge_pages = on. Those of a server that runs now count as
// there: it ends before the next one starts.
std::string WhyNoHugePages(uint64_t pages, const MemoryFacts& facts);

}  // namespace metal::pg
