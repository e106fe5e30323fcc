// WAL files for tests of the WAL archive.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/backup/wal_archive.h"
#include "agent/base/units.h"
#include "tests/harness/scattered_bytes.h"

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
    testing::ScatterBytes(std::span(bytes).subspan(40), 2, seed);
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

// Records of WAL in pages, from the place `from` of a segment on; the pages before it are empty.
class TestWal {
 public:
  explicit TestWal(base::Lsn from, uint64_t segment_size = kTestSegmentSize)
      : segment_size_(segment_size), start_(from.value - from.value % segment_size) {
    const uint64_t offset = from.value - start_;
    bytes_.assign(offset - offset % kPage, '\0');
    PutHeader(0);
    bytes_.resize(std::max<size_t>(bytes_.size(), offset));
  }

  // Answers where it begins.
  base::Lsn Add(uint8_t manager, uint8_t info, std::string_view body) {
    if (bytes_.size() % kPage == 0) PutHeader(0);
    const base::Lsn at = end();
    std::string record(24, '\0');
    const auto length = static_cast<uint32_t>(24 + body.size());
    std::memcpy(record.data(), &length, 4);
    std::memcpy(record.data() + 8, &previous_.value, 8);
    record[16] = static_cast<char>(info);
    record[17] = static_cast<char>(manager);
    record += body;
    for (size_t i = 0; i < record.size(); ++i) {
      if (bytes_.size() % kPage == 0) PutHeader(static_cast<uint32_t>(record.size() - i));
      bytes_ += record[i];
    }
    bytes_.resize((bytes_.size() + 7) & ~size_t{7});
    previous_ = at;
    return at;
  }
  // CREATE TABLESPACE.
  base::Lsn AddTablespace(uint32_t oid, const std::string& location) {
    std::string data(4, '\0');
    std::memcpy(data.data(), &oid, 4);
    data += location + '\0';
    return Add(5, 0, std::string("\xff") + static_cast<char>(data.size()) + data);
  }
  // Ends the segment early.
  void Switch() {
    Add(0, 0x40, "");
    bytes_.resize((bytes_.size() + segment_size_ - 1) / segment_size_ * segment_size_);
  }

  base::Lsn end() const { return {start_ + bytes_.size()}; }
  const std::string& bytes() const { return bytes_; }  // from the segment's beginning on

 private:
  static constexpr size_t kPage = 8192;

  void PutHeader(uint32_t continued) {
    const uint64_t address = start_ + bytes_.size();
    const bool is_long = address % segment_size_ == 0;
    std::string header(is_long ? 40 : 24, '\0');
    const auto put = [&](size_t offset, auto value) {
      std::memcpy(header.data() + offset, &value, sizeof value);
    };
    put(0, uint16_t{0xD110});
    put(2, static_cast<uint16_t>((is_long ? 2 : 0) | (continued != 0 ? 1 : 0)));
    put(4, uint32_t{1});
    put(8, address);
    put(16, continued);
    if (is_long) {
      put(24, kTestSystem);
      put(32, static_cast<uint32_t>(segment_size_));
      put(36, uint32_t{8192});
    }
    bytes_ += header;
  }

  const uint64_t segment_size_;
  const uint64_t start_;
  std::string bytes_;
  base::Lsn previous_;
};

}  // namespace metal::backup
