#include "agent/base/units.h"

#include <cctype>
#include <charconv>

#include "fmt/format.h"

namespace metal::base {
namespace {

std::optional<uint64_t> ParseHex(std::string_view text) {
  if (text.empty() || text.size() > 8) return std::nullopt;
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string Lsn::ToString() const {
  return fmt::format("{:X}/{:X}", value >> 32, value & 0xffffffffu);
}

std::optional<Lsn> Lsn::Parse(std::string_view text) {
  size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  auto high = ParseHex(text.substr(0, slash));
  auto low = ParseHex(text.substr(slash + 1));
  if (!high || !low) return std::nullopt;
  return Lsn{(*high << 32) | *low};
}

std::string ByteCount::ToString() const {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (value < kKiB) return fmt::format("{} B", value);
  double scaled = static_cast<double>(value) / static_cast<double>(kKiB);
  size_t unit = 0;
  while (scaled >= 1024 && unit + 1 < std::size(kUnits)) {
    scaled /= 1024;
    ++unit;
  }
  if (scaled >= 100) return fmt::format("{:.0f} {}", scaled, kUnits[unit]);
  return fmt::format("{:.1f} {}", scaled, kUnits[unit]);
}

std::optional<ByteCount> ByteCount::Parse(std::string_view text) {
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  std::string unit;
  for (const char* p = end; p != text.data() + text.size(); ++p) {
    if (*p != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*p)));
  }
  uint64_t factor = 1;
  if (unit.empty() || unit == "b")
    factor = 1;
  else if (unit == "k" || unit == "kb" || unit == "kib")
    factor = kKiB;
  else if (unit == "m" || unit == "mb" || unit == "mib")
    factor = kMiB;
  else if (unit == "g" || unit == "gb" || unit == "gib")
    factor = kGiB;
  else if (unit == "t" || unit == "tb" || unit == "tib")
    factor = kGiB * 1024;
  else
    return std::nullopt;
  if (number > UINT64_MAX / factor) return std::nullopt;
  return ByteCount{number * factor};
}

std::string WalFileName(TimelineId timeline, Lsn lsn, uint64_t segment_size) {
  const uint64_t segment = lsn.value / segment_size;
  const uint64_t per_id = 0x100000000ULL / segment_size;
  return fmt::format("{:08X}{:08X}{:08X}", timeline, segment / per_id, segment % per_id);
}

std::optional<WalSegment> ParseWalFileName(std::string_view name, uint64_t segment_size) {
  if (name.size() != 24) return std::nullopt;
  for (char c : name) {
    if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'))) return std::nullopt;
  }
  const uint64_t timeline = *ParseHex(name.substr(0, 8));
  const uint64_t id = *ParseHex(name.substr(8, 8));
  const uint64_t segment = *ParseHex(name.substr(16, 8));
  if (timeline == 0 || segment >= 0x100000000ULL / segment_size) return std::nullopt;
  return WalSegment{static_cast<TimelineId>(timeline), Lsn{(id << 32) + segment * segment_size}};
}

}  // namespace metal::base
