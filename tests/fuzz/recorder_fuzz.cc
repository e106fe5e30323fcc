// Arbitrary bytes as a ring's frames, as a line of the kernel's log, and as text with a secret in
// it: nothing that is not whole passes for a frame, and no secret is left.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/check.h"
#include "agent/recorder/json_text.h"
#include "agent/recorder/kernel_log.h"
#include "agent/recorder/record.h"
#include "agent/recorder/redact.h"

namespace metal::recorder {
namespace {

constexpr uint64_t kRing = 0x1234'5678'9abc'def0;

void TakeAsFrame(std::span<const std::byte> bytes) {
  const auto size = FrameSizeAt(bytes);
  METAL_CHECK(!FrameIsWhole(bytes, kRing) || (size && *size <= bytes.size()));
  if (size && *size <= bytes.size()) DecodeFrame(bytes.first(*size));
}

void WriteAndReadBack(std::string_view text) {
  Entry entry(RecordKind::kEvent);
  const size_t half = text.size() / 2;
  entry.Add(text.substr(0, half), text.substr(half)).AddPrefixed('@', text, text);
  std::vector<std::byte> frame(FrameSize(entry.payload().size()));
  EncodeFrame(entry, {}, frame);
  SealFrame(frame, kRing, 7);
  METAL_CHECK(FrameIsWhole(frame, kRing) && !FrameIsWhole(frame, kRing + 1));
  const Record record = DecodeFrame(frame);
  METAL_CHECK(record.sequence == 7);
  if (!entry.cut()) METAL_CHECK(record.fields.at(0).second == text.substr(half));
  const size_t at = text.empty() ? 0 : static_cast<unsigned char>(text[0]) % frame.size();
  frame[at] ^= std::byte{0x10};
  METAL_CHECK(!FrameIsWhole(frame, kRing));
}

void Redact(std::string_view text) {
  static const Redactor redactor(std::vector<std::string>{"kn0wn-s3cret"});
  const std::string half(text.substr(0, text.size() / 2));
  const std::string known = redactor.Clean(half + "kn0wn-s3cret" + std::string(text));
  METAL_CHECK(known.find("kn0wn-s3cret") == std::string::npos);
  const std::string named = redactor.Clean(half + " password=n4med " + std::string(text));
  METAL_CHECK(text.find("n4med") != std::string::npos || named.find("n4med") == std::string::npos);
  const std::string json = JsonString(named);
  METAL_CHECK(json.find('\n') == std::string::npos && json.find('<') == std::string::npos);
}

}  // namespace
}  // namespace metal::recorder

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace metal::recorder;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  TakeAsFrame(std::as_bytes(std::span(data, size)));
  WriteAndReadBack(text);
  Redact(text);
  KernelLogLine(text);
  return 0;
}
