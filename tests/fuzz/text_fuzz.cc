// Arbitrary bytes as LSNs, sizes, WAL file names and text: what is accepted survives the round
// trip, what comes out of ToValidUtf8 is left alone by a second pass.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "agent/base/check.h"
#include "agent/base/units.h"
#include "agent/base/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace metal::base;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto lsn = Lsn::Parse(text)) METAL_CHECK(Lsn::Parse(lsn->ToString()) == lsn);
  if (const auto bytes = ByteCount::Parse(text)) METAL_CHECK(!bytes->ToString().empty());
  for (uint64_t segment_size = kMiB; segment_size <= kGiB; segment_size *= 2) {
    if (const auto segment = ParseWalFileName(text, segment_size)) {
      METAL_CHECK(WalFileName(segment->timeline, segment->start, segment_size) == text);
    }
  }
  const std::string valid = ToValidUtf8(text, 1000);
  METAL_CHECK(valid.size() <= 1000);
  METAL_CHECK(ToValidUtf8(valid, 1000) == valid);
  return 0;
}
