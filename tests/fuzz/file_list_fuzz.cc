// Arbitrary bytes as lines of a file list and as a compressed list: a line that parses must survive
// the round trip, a reader must end, and no path may leave the data directory.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "agent/backup/file_list.h"
#include "agent/backup/text_fields.h"
#include "agent/base/check.h"

namespace {

using namespace metal::backup;

void CheckLine(std::string_view line) {
  FileListRecord record;
  if (!ParseRecord(line, record).ok()) return;
  if (record.kind == RecordKind::kFile || record.kind == RecordKind::kDirectory) {
    METAL_CHECK(IsSafeRelativePath(record.file.path));
  }
  std::string text;
  AppendRecord(record, text);
  METAL_CHECK(!text.empty() && text.back() == '\n');
  FileListRecord again;
  METAL_CHECK(ParseRecord(std::string_view(text).substr(0, text.size() - 1), again).ok());
  METAL_CHECK(again.kind == record.kind && again.file == record.file &&
              again.extent == record.extent && again.location == record.location &&
              again.tablespace == record.tablespace);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  size_t read = 0;
  FileListReader reader(
      [&](std::span<char> out) -> absl::StatusOr<size_t> {
        const size_t length = std::min({out.size(), size - read, size_t{61}});
        std::memcpy(out.data(), text.data() + read, length);
        read += length;
        return length;
      },
      {.raw_bytes = size, .sha256 = std::string(64, '0'), .pack_count = 3});
  FileListRecord record;
  while (reader.Next(record).ok() && record.kind != RecordKind::kEnd) {
  }
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    CheckLine(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return 0;
}
