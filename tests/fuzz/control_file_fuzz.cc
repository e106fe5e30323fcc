// Arbitrary bytes as pg_control, as given and with the CRC of either layout made right so that the
// fields are reached.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "agent/base/check.h"
#include "agent/base/crc32c.h"
#include "agent/pg/control_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  static_cast<void>(metal::pg::DecodeControlFile(bytes));
  for (const size_t crc_offset : {size_t{288}, size_t{292}}) {
    std::vector<std::byte> fixed(bytes.begin(), bytes.end());
    if (fixed.size() < crc_offset + sizeof(uint32_t)) continue;
    const uint32_t crc = metal::base::Crc32c(std::span(fixed).first(crc_offset));
    std::memcpy(fixed.data() + crc_offset, &crc, sizeof crc);
    const auto control = metal::pg::DecodeControlFile(fixed);
    if (!control.ok()) continue;
    METAL_CHECK(!metal::pg::ControlStateName(control->state).empty());
    METAL_CHECK(!metal::pg::WalLevelName(control->wal_level).empty());
    METAL_CHECK(control->wal_segment_size != 0 && control->block_size != 0 &&
                control->segment_blocks != 0);
    metal::pg::MajorVersionOf(*control);
  }
  return 0;
}
