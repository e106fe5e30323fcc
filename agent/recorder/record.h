// One record of the flight recorder: what happened, when by both clocks, and facts by name.
// Bytes on disk, little-endian; a frame begins at a multiple of 8 and is padded to one:
//   0  u32  magic "MREC"
//   4  u32  CRC-32C of the ring's id (8 bytes) and of all that follows here, padding too
//   8  u32  payload bytes, at most kPayloadMost
//  12  u16  kind
//  14  u16  flags: 1: something did not fit
//  16  u64  sequence; grows by one with every record of a ring
//  24  i64  µs since 1970, by the wall clock
//  32  i64  µs since the host's boot
//  40  payload: facts one after another, each u8 length, name, u16 length, value
// Threading: an Entry belongs to one thread; the rest are pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace metal::recorder {

enum class RecordKind : uint16_t {
  kStart = 1,    // the agent began: version, pid, boot_id
  kRpc = 2,      // a call ended: rpc, peer, caller, subject, term, code, duration_us
  kEvent = 3,    // of the event log: type, severity, subject, message, attributes as "@name"
  kProbe = 4,    // of one role since the last one: counts, latencies, what is outstanding
  kControl = 5,  // pg_control at a moment: moment, state, checkpoint, timeline, …
  kDropped = 6,  // records that found no room: count
  kDrive = 7,  // counters of a drive that changed: device, serial, severity, each and its "_delta"
  kKernel = 8  // a line of the kernel's log that is no event: subject, class, line, again
};
// "start", "rpc", …; "unknown" for a number that has no name here.
std::string_view RecordKindName(RecordKind kind);

inline constexpr size_t kFrameHeader = 40;
inline constexpr size_t kPayloadMost = 8192;
inline constexpr size_t kFrameMost = kFrameHeader + kPayloadMost;

// A record in the making. Holds its bytes itself and never allocates.
class Entry {
 public:
  explicit Entry(RecordKind kind) : kind_(kind) {}
  // A name longer than 255 bytes, or a value that does not fit any more, is cut; the record then
  // says so.
  Entry& Add(std::string_view name, std::string_view value);
  Entry& Add(std::string_view name, int64_t number);
  // The name with a prefix before it.
  Entry& AddPrefixed(char prefix, std::string_view name, std::string_view value);

  RecordKind kind() const { return kind_; }
  bool cut() const { return cut_; }
  std::span<const std::byte> payload() const { return std::span(bytes_).first(size_); }

 private:
  void PutByte(uint8_t byte) { bytes_[size_++] = std::byte{byte}; }
  void PutText(std::string_view text);

  const RecordKind kind_;
  bool cut_ = false;
  size_t size_ = 0;
  std::array<std::byte, kPayloadMost> bytes_;  // only the first size_ are set
};

// A record as read back.
struct Record {
  uint64_t sequence = 0;  // 0: not written yet
  absl::Time time;
  absl::Duration since_boot;
  RecordKind kind = RecordKind::kStart;
  bool cut = false;
  std::vector<std::pair<std::string, std::string>> fields;  // in the order of writing

  // The first field of the name; empty when there is none.
  std::string_view Find(std::string_view name) const;
};

struct FrameTimes {
  absl::Time now;
  absl::Duration since_boot;
};

// Bytes of a frame with such a payload, padding included.
size_t FrameSize(size_t payload);
// Writes the frame without sequence and CRC into `frame`, whose size is FrameSize(payload's).
void EncodeFrame(const Entry& entry, const FrameTimes& times, std::span<std::byte> frame);
// Sets both. REQUIRES: a frame of EncodeFrame, also with bytes after it.
void SealFrame(std::span<std::byte> frame, uint64_t ring_id, uint64_t sequence);
// Size of the frame at the front by what it says about itself; nullopt: no frame begins here.
std::optional<size_t> FrameSizeAt(std::span<const std::byte> bytes);
// True when the frame at the front is whole and of this ring.
bool FrameIsWhole(std::span<const std::byte> bytes, uint64_t ring_id);
uint64_t FrameSequence(std::span<const std::byte> frame);
// The frame's content. REQUIRES: FrameIsWhole, or a frame of EncodeFrame.
Record DecodeFrame(std::span<const std::byte> frame);

}  // namespace metal::recorder
