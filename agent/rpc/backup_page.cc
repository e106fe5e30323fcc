#include "agent/rpc/backup_page.h"

#include <algorithm>

#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::rpc {
namespace {

constexpr int kPageDefault = 100;
constexpr int kPageMax = 1000;

// Two systems may have backups of one label.
std::string TokenOf(const backup::BackupInfo& info) {
  return fmt::format("{}/{}", info.header.system_identifier, info.label);
}

}  // namespace

absl::StatusOr<BackupPage> PageOfBackups(std::span<const backup::BackupInfo> all, int size,
                                         std::string_view token) {
  if (size < 0 || size > kPageMax) {
    return base::Error(absl::StatusCode::kInvalidArgument, "page_size {} is not in 1 … {}", size,
                       kPageMax);
  }
  if (!token.empty()) {
    const auto last = std::ranges::find(all, token, TokenOf);
    if (last == all.end()) {
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "no backup is here that the page token \"{}\" names. HINT: it may have "
                         "been removed meanwhile; list from the beginning",
                         token);
    }
    all = all.subspan(static_cast<size_t>(last - all.begin()) + 1);
  }
  const size_t count = static_cast<size_t>(size == 0 ? kPageDefault : size);
  if (all.size() <= count) return BackupPage{all, ""};
  return BackupPage{all.first(count), TokenOf(all[count - 1])};
}

}  // namespace metal::rpc
