#include "agent/pg/memory_check.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include "agent/base/file.h"
#include "fmt/format.h"

namespace metal::pg {
namespace {

constexpr std::string_view kCannotMap =
    "could not map anonymous shared memory: Cannot allocate memory";

// "MemTotal:       24609328 kB"
std::optional<uint64_t> ValueOf(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (!line.starts_with(name) || line.substr(name.size(), 1) != ":") continue;
    line.remove_prefix(std::min(line.find_first_not_of(' ', name.size() + 1), line.size()));
    uint64_t value = 0;
    const auto read = std::from_chars(line.data(), line.data() + line.size(), value);
    if (read.ec == std::errc()) return value;
  }
  return std::nullopt;
}

}  // namespace

std::optional<MemoryFacts> ParseMemInfo(std::string_view text) {
  const auto total = ValueOf(text, "MemTotal");
  if (!total) return std::nullopt;
  MemoryFacts facts;
  facts.kib = *total;
  facts.swap_kib = ValueOf(text, "SwapTotal").value_or(0);
  facts.huge_pages = ValueOf(text, "HugePages_Total").value_or(0);
  facts.huge_page_kib = ValueOf(text, "Hugepagesize").value_or(0);
  return facts;
}

std::optional<MemoryFacts> ReadMemoryFacts() {
  const auto text = base::ReadFile("/proc/meminfo");
  auto facts = text.ok() ? ParseMemInfo(*text) : std::nullopt;
  const auto overcommit = base::ReadFile("/proc/sys/vm/overcommit_memory");
  if (facts && overcommit.ok()) facts->maps_anything = overcommit->starts_with("1");
  return facts;
}

std::string WhyNotMapped(uint64_t mib, const MemoryFacts& facts) {
  const uint64_t available = (facts.kib + facts.swap_kib) / 1024;
  if (facts.maps_anything || mib <= available) return "";
  return fmt::format("{} ({} MiB wanted, {} MiB of memory and swap there)", kCannotMap, mib,
                     available);
}

std::string WhyNoHugePages(uint64_t pages, const MemoryFacts& facts) {
  if (pages <= facts.huge_pages) return "";
  return fmt::format(
      "{} ({} huge pages of {} KiB wanted, {} there). HINT: set vm.nr_hugepages, or huge_pages = "
      "try",
      kCannotMap, pages, facts.huge_page_kib, facts.huge_pages);
}

}  // namespace metal::pg
