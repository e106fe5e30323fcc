// Arbitrary bytes as a backup's manifest, with the hash of its last line made right so that the
// fields are reached: what parses must format to a text that parses to the same, and name no path
// outside the repository.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/backup/manifest.h"
#include "agent/backup/sha256.h"
#include "agent/backup/text_fields.h"
#include "agent/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace metal::backup;
  const std::string_view given(reinterpret_cast<const char*>(data), size);
  static_cast<void>(ParseManifest(given));

  std::string text(given);
  if (const size_t end = text.rfind("\nend\t"); end != text.npos) text.resize(end + 1);
  text += "end\t" + Sha256Of(text) + "\n";
  const auto header = ParseManifest(text);
  if (!header.ok()) return 0;
  for (const PackReference& pack : header->packs) METAL_CHECK(IsSafeRelativePath(pack.path));
  const auto again = ParseManifest(FormatManifest(*header));
  METAL_CHECK(again.ok() && *again == *header);
  return 0;
}
