#include "agent/recorder/record.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>

#include "agent/base/check.h"
#include "agent/base/crc32c.h"

namespace metal::recorder {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are written as they are");

constexpr uint32_t kMagic = 0x4345524d;  // "MREC"
constexpr uint16_t kFlagCut = 1;
constexpr size_t kCrcFrom = 8;
constexpr size_t kNameMost = 255;

template <typename T>
T Get(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <typename T>
void Put(std::span<std::byte> bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

uint32_t CrcOf(std::span<const std::byte> frame, uint64_t ring_id) {
  const uint32_t seed = base::Crc32c(std::as_bytes(std::span(&ring_id, 1)));
  const size_t end = FrameSize(Get<uint32_t>(frame, 8));
  return base::Crc32cExtend(seed, frame.subspan(kCrcFrom, end - kCrcFrom));
}

std::string TextOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::string_view RecordKindName(RecordKind kind) {
  constexpr std::array<std::string_view, 9> kNames = {
      "unknown", "start", "rpc", "event", "probe", "control", "dropped", "drive", "kernel"};
  const auto number = static_cast<size_t>(kind);
  return number < kNames.size() ? kNames[number] : kNames[0];
}

void Entry::PutText(std::string_view text) {
  std::memcpy(bytes_.data() + size_, text.data(), text.size());
  size_ += text.size();
}

Entry& Entry::AddPrefixed(char prefix, std::string_view name, std::string_view value) {
  const size_t prefixed = prefix == '\0' ? 0 : 1;
  const std::string_view shown = name.substr(0, kNameMost - prefixed);
  const size_t frame = 1 + prefixed + shown.size() + 2;
  if (size_ + frame > kPayloadMost) {
    cut_ = true;
    return *this;
  }
  const std::string_view kept = value.substr(0, kPayloadMost - size_ - frame);
  cut_ = cut_ || kept.size() < value.size() || shown.size() < name.size();
  PutByte(static_cast<uint8_t>(prefixed + shown.size()));
  if (prefixed != 0) PutByte(static_cast<uint8_t>(prefix));
  PutText(shown);
  PutByte(static_cast<uint8_t>(kept.size() & 0xff));
  PutByte(static_cast<uint8_t>(kept.size() >> 8));
  PutText(kept);
  return *this;
}

Entry& Entry::Add(std::string_view name, std::string_view value) {
  return AddPrefixed('\0', name, value);
}

Entry& Entry::Add(std::string_view name, int64_t number) {
  std::array<char, 24> text;
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), number);
  METAL_CHECK(error == std::errc());
  return Add(name, std::string_view(text.data(), static_cast<size_t>(end - text.data())));
}

std::string_view Record::Find(std::string_view name) const {
  const auto found = std::ranges::find(fields, name, [](const auto& field) { return field.first; });
  return found == fields.end() ? std::string_view() : found->second;
}

size_t FrameSize(size_t payload) { return (kFrameHeader + payload + 7) / 8 * 8; }

void EncodeFrame(const Entry& entry, const FrameTimes& times, std::span<std::byte> frame) {
  const auto payload = entry.payload();
  METAL_CHECK(frame.size() == FrameSize(payload.size()));
  std::ranges::fill(frame.last(frame.size() - kFrameHeader - payload.size()), std::byte{0});
  Put(frame, 0, kMagic);
  Put(frame, 4, uint32_t{0});
  Put(frame, 8, static_cast<uint32_t>(payload.size()));
  Put(frame, 12, static_cast<uint16_t>(entry.kind()));
  Put(frame, 14, entry.cut() ? kFlagCut : uint16_t{0});
  Put(frame, 16, uint64_t{0});
  Put(frame, 24, absl::ToUnixMicros(times.now));
  Put(frame, 32, absl::ToInt64Microseconds(times.since_boot));
  std::memcpy(frame.data() + kFrameHeader, payload.data(), payload.size());
}

void SealFrame(std::span<std::byte> frame, uint64_t ring_id, uint64_t sequence) {
  Put(frame, 16, sequence);
  Put(frame, 4, CrcOf(frame, ring_id));
}

std::optional<size_t> FrameSizeAt(std::span<const std::byte> bytes) {
  if (bytes.size() < kFrameHeader || Get<uint32_t>(bytes, 0) != kMagic) return std::nullopt;
  const auto payload = Get<uint32_t>(bytes, 8);
  if (payload > kPayloadMost) return std::nullopt;
  return FrameSize(payload);
}

bool FrameIsWhole(std::span<const std::byte> bytes, uint64_t ring_id) {
  const auto size = FrameSizeAt(bytes);
  return size && *size <= bytes.size() && CrcOf(bytes, ring_id) == Get<uint32_t>(bytes, 4);
}

uint64_t FrameSequence(std::span<const std::byte> frame) { return Get<uint64_t>(frame, 16); }

Record DecodeFrame(std::span<const std::byte> frame) {
  Record record;
  record.kind = static_cast<RecordKind>(Get<uint16_t>(frame, 12));
  record.cut = (Get<uint16_t>(frame, 14) & kFlagCut) != 0;
  record.sequence = FrameSequence(frame);
  record.time = absl::FromUnixMicros(Get<int64_t>(frame, 24));
  record.since_boot = absl::Microseconds(Get<int64_t>(frame, 32));
  std::span<const std::byte> rest = frame.subspan(kFrameHeader, Get<uint32_t>(frame, 8));
  while (!rest.empty()) {
    const auto name_size = static_cast<size_t>(rest[0]);
    if (rest.size() < 1 + name_size + 2) break;
    std::string name = TextOf(rest.subspan(1, name_size));
    const auto value_size = size_t{Get<uint16_t>(rest, 1 + name_size)};
    rest = rest.subspan(1 + name_size + 2);
    if (rest.size() < value_size) break;
    record.fields.emplace_back(std::move(name), TextOf(rest.first(value_size)));
    rest = rest.subspan(value_size);
  }
  return record;
}

}  // namespace metal::recorder
