// WAL files for tests of the WAL archive.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/backup/wal_archive.h"
#include "agent/base/units.h"

namespace metal::backup {

inline constexpr uint64_t kTestSystem = 7300000000000000001;
inline constexpr uint64_t kTestSegmentSize = base::kMiB;  // the smallest that PostgreSQL has

inline std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

struct TestSegment {
  base::TimelineId timeline = 1;
  base::Lsn start{kTestSegmentSize};
  uint64_t system_identifier = kTestSystem;
  uint64_t size = kTestSegmentSize;
  unsigned seed = 1;
  uint16_t page_magic = 0xD110;
  uint16_t info = 2;

  std::string Name() const { return base::WalFileName(timeline, start, size); }
  // Page headers, the first one long, and bytes of which about half compress away.
  std::string Bytes() const {
    std::string bytes(size, '\0');
    std::minstd_rand random(seed);
    for (size_t i = 40; i < bytes.size(); i += 2) bytes[i] = static_cast<char>(random());
    const auto put = [&](size_t offset, auto value) {
      std::memcpy(bytes.data() + offset, &value, sizeof value);
    };
    for (size_t page = 8192; page < size; page += 8192) {
      put(page, page_magic);
      put(page + 2, uint16_t{0});
      put(page + 4, timeline);
      put(page + 8, start.value + page);
    }
    put(0, page_magic);
    put(2, info);
    put(4, timeline);
    put(8, start.value);
    put(24, system_identifier);
    put(32, static_cast<uint32_t>(size));
    put(36, uint32_t{8192});
    return bytes;
  }
};

}  // namespace metal::backup
