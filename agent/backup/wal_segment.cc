#include "agent/backup/wal_segment.h"

#include <bit>
#include <charconv>
#include <cstring>

#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::backup {
namespace {

constexpr uint16_t kFirstPageMagic = 0xD106;  // XLOG_PAGE_MAGIC of PostgreSQL 13
constexpr uint16_t kLastPageMagic = 0xD1FF;   // every release so far only counts the low byte up
constexpr uint16_t kLongHeader = 0x0002;      // XLP_LONG_HEADER
constexpr size_t kSegmentNameLength = 24;

bool IsUpperHex(std::string_view text) {
  for (char c : text) {
    if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'))) return false;
  }
  return true;
}

uint32_t HexValue(std::string_view eight_digits) {
  uint32_t value = 0;
  std::from_chars(eight_digits.data(), eight_digits.data() + eight_digits.size(), value, 16);
  return value;
}

template <typename T>
T Load(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);  // WAL is in the host's byte order
  return value;
}

absl::Status Misfit(const WalFile& file, std::string_view what) {
  return base::Error(
      absl::StatusCode::kInvalidArgument,
      "WAL file {}: {}. HINT: only files of pg_wal can be archived; compare with pg_waldump",
      file.name, what);
}

absl::StatusOr<uint64_t> CheckSegment(const WalFile& file, std::span<const std::byte> beginning,
                                      uint64_t size, uint64_t system_identifier) {
  auto header = DecodeWalSegmentHeader(beginning);
  if (!header.ok()) return base::Annotate(header.status(), fmt::format("WAL file {}", file.name));
  if (size != header->segment_size) {
    return Misfit(file,
                  fmt::format("it has {} bytes, its header says {}", size, header->segment_size));
  }
  const auto named =
      base::ParseWalFileName(file.name.substr(0, kSegmentNameLength), header->segment_size);
  if (!named) return Misfit(file, fmt::format("no segment of {} bytes has this number", size));
  if (header->address != named->start) {
    return Misfit(file, fmt::format("its first page is at {}, the name says {}",
                                    header->address.ToString(), named->start.ToString()));
  }
  // After a promotion the first segment of the new timeline starts as a copy of the old timeline's.
  if (header->timeline == 0 || header->timeline > file.timeline) {
    return Misfit(file, fmt::format("its first page is of timeline {}", header->timeline));
  }
  if (system_identifier != 0 && header->system_identifier != system_identifier) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "WAL file {} is of the foreign cluster {}, this one is {}. HINT: check "
                       "archive_command and the data "
                       "directory it runs in",
                       file.name, header->system_identifier, system_identifier);
  }
  return header->system_identifier;
}

// A history line is "parent timeline, tab, switch point, tab, reason"; empty lines and # comments
// are allowed.
absl::Status CheckHistory(const WalFile& file, std::string_view text) {
  base::TimelineId last = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const size_t first = line.find_first_not_of(" \t");
    if (first == std::string_view::npos || line[first] == '#') continue;
    line.remove_prefix(first);
    base::TimelineId parent = 0;
    auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), parent);
    if (error != std::errc()) return Misfit(file, "a line does not start with a timeline");
    line.remove_prefix(static_cast<size_t>(rest - line.data()));
    const size_t lsn_begin = line.find_first_not_of(" \t");
    if (lsn_begin == std::string_view::npos) return Misfit(file, "a line has no switch point");
    line.remove_prefix(lsn_begin);
    if (!base::Lsn::Parse(line.substr(0, line.find_first_of(" \t\r"))))
      return Misfit(file, "a line has no switch point");
    if (parent <= last || parent >= file.timeline)
      return Misfit(file, "its timelines do not ascend to its own");
    last = parent;
  }
  if (last == 0) return Misfit(file, "it names no parent timeline");
  return absl::OkStatus();
}

absl::Status CheckText(const WalFile& file, std::span<const std::byte> beginning, uint64_t size) {
  if (size == 0 || size > kMaxWalTextBytes || size != beginning.size()) {
    return Misfit(file,
                  fmt::format("it has {} bytes, allowed are 1 to {}", size, kMaxWalTextBytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(beginning.data()), beginning.size());
  if (text.find('\0') != std::string_view::npos) return Misfit(file, "it is not text");
  if (file.kind == WalFileKind::kHistory) return CheckHistory(file, text);
  if (!text.starts_with("START WAL LOCATION: ")) return Misfit(file, "it is not a backup label");
  return absl::OkStatus();
}

}  // namespace

std::optional<WalFile> ParseWalFile(std::string_view name) {
  constexpr std::string_view kPartialSuffix = ".partial", kHistorySuffix = ".history",
                             kBackupSuffix = ".backup";
  WalFile file;
  std::string_view hex = name.substr(0, kSegmentNameLength);
  const std::string_view rest = name.substr(hex.size());
  if (name.size() == 8 + kHistorySuffix.size() && name.ends_with(kHistorySuffix)) {
    file.kind = WalFileKind::kHistory;
    hex = name.substr(0, 8);
  } else if (hex.size() != kSegmentNameLength) {
    return std::nullopt;
  } else if (rest.empty()) {
    file.kind = WalFileKind::kSegment;
  } else if (rest == kPartialSuffix) {
    file.kind = WalFileKind::kPartial;
  } else if (rest.size() == 9 + kBackupSuffix.size() && rest[0] == '.' &&
             IsUpperHex(rest.substr(1, 8)) && rest.ends_with(kBackupSuffix)) {
    file.kind = WalFileKind::kBackup;
  } else {
    return std::nullopt;
  }
  if (!IsUpperHex(hex)) return std::nullopt;
  file.timeline = HexValue(hex.substr(0, 8));
  if (file.timeline == 0) return std::nullopt;
  file.name = std::string(name);
  return file;
}

absl::StatusOr<WalSegmentHeader> DecodeWalSegmentHeader(std::span<const std::byte> bytes) {
  const auto bad = [](std::string_view what) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "not a WAL segment: {}. HINT: PostgreSQL 13 or newer writes them", what);
  };
  if (bytes.size() < kWalSegmentHeaderSize) return bad(fmt::format("only {} bytes", bytes.size()));
  WalSegmentHeader header;
  header.page_magic = Load<uint16_t>(bytes, 0);
  const uint16_t info = Load<uint16_t>(bytes, 2);
  header.timeline = Load<uint32_t>(bytes, 4);
  header.address = base::Lsn{Load<uint64_t>(bytes, 8)};
  header.system_identifier = Load<uint64_t>(bytes, 24);
  header.segment_size = Load<uint32_t>(bytes, 32);
  header.block_size = Load<uint32_t>(bytes, 36);
  if (header.page_magic < kFirstPageMagic || header.page_magic > kLastPageMagic) {
    return bad(fmt::format("page magic {:04X}", header.page_magic));
  }
  if ((info & kLongHeader) == 0) return bad("no long page header");
  if (!std::has_single_bit(header.segment_size) || header.segment_size < base::kMiB ||
      header.segment_size > base::kGiB) {
    return bad(fmt::format("segment size {}", header.segment_size));
  }
  if (!std::has_single_bit(header.block_size) || header.block_size < base::kKiB ||
      header.block_size > 64 * base::kKiB) {
    return bad(fmt::format("block size {}", header.block_size));
  }
  if (header.system_identifier == 0) return bad("no system identifier");
  return header;
}

absl::StatusOr<uint64_t> CheckWalContent(const WalFile& file, std::span<const std::byte> beginning,
                                         uint64_t size, uint64_t system_identifier) {
  if (file.kind == WalFileKind::kSegment || file.kind == WalFileKind::kPartial) {
    return CheckSegment(file, beginning, size, system_identifier);
  }
  if (system_identifier == 0) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "WAL file {} does not say which cluster it is of. HINT: run metal-wal in "
                       "the data directory or give "
                       "--cluster",
                       file.name);
  }
  METAL_RETURN_IF_ERROR(CheckText(file, beginning, size));
  return system_identifier;
}

}  // namespace metal::backup
