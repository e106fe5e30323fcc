// The WAL socket's messages, the WAL archive's header and what decides whether a file may be
// archived, on arbitrary bytes: whatever decodes must encode to the same bytes again.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "agent/backup/wal_object.h"
#include "agent/backup/wal_protocol.h"
#include "agent/backup/wal_segment.h"
#include "agent/base/check.h"

using namespace metal::backup;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto bytes = std::as_bytes(std::span(data, size));
  if (const auto length = DecodeWalLength(text.substr(0, kWalLengthBytes)))
    METAL_CHECK(*length <= kMaxWalBody);
  if (const auto request = DecodeWalRequest(text)) {
    METAL_CHECK(EncodeWalRequest(*request).substr(kWalLengthBytes) == text);
  }
  if (const auto response = DecodeWalResponse(text); response && size <= kMaxWalBody) {
    METAL_CHECK(EncodeWalResponse(*response).substr(kWalLengthBytes) == text);
  }
  if (const auto header = DecodeWalObjectHeader(bytes); header.ok()) {
    const auto again = DecodeWalObjectHeader(EncodeWalObjectHeader(*header));
    METAL_CHECK(again.ok() && again->name == header->name && again->digest == header->digest);
  }
  // The first line is a name, the rest its contents.
  const size_t end = std::min(text.find('\n'), size);
  const auto file = ParseWalFile(text.substr(0, end));
  METAL_CHECK(!file || file->name.find('/') == std::string::npos);
  const WalFile names[] = {file.value_or(WalFile{WalFileKind::kHistory, 9, "00000009.history"}),
                           {WalFileKind::kSegment, 1, "000000010000000000000001"},
                           {WalFileKind::kBackup, 1, "000000010000000000000001.00000028.backup"}};
  for (const WalFile& name : names) {
    const auto contents = bytes.subspan(std::min(size, end + 1));
    if (contents.size() > kWalCheckBytes) break;
    (void)CheckWalContent(name, contents, contents.size(), 1);
  }
  return 0;
}
