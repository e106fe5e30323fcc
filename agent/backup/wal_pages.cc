#include "agent/backup/wal_pages.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr size_t kShortHeaderSize = 24;

template <typename T>
T Load(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);  // WAL is in the host's byte order
  return value;
}

bool IsZero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

}  // namespace

WalPages::WalPages(WalFile file, uint64_t system_identifier, base::Lsn needed)
    : file_(std::move(file)), system_identifier_(system_identifier), needed_(needed) {}

absl::Status WalPages::Wrong(std::string_view what) const {
  return base::WithReason(
      base::Error(absl::StatusCode::kDataLoss,
                  "archived WAL {}: {}. HINT: compare with pg_waldump; take a new backup",
                  file_.name, what),
      {"REPOSITORY", {{"file", file_.name}}});
}

absl::Status WalPages::Begin(std::span<const std::byte> bytes) {
  const auto header = DecodeWalSegmentHeader(bytes);
  if (!header.ok()) return Wrong(std::string(header.status().message()));
  header_ = *header;
  // The name, the first page and the cluster, as when it was archived.
  const auto owner = CheckWalContent(file_, bytes.first(std::min(bytes.size(), kWalCheckBytes)),
                                     header_.segment_size, system_identifier_);
  return owner.ok() ? absl::OkStatus() : Wrong(std::string(owner.status().message()));
}

absl::Status WalPages::Add(std::span<const std::byte> bytes) {
  if (offset_ == 0 && rest_.empty()) METAL_RETURN_IF_ERROR(Begin(bytes));
  const size_t page = header_.block_size;
  if (!rest_.empty()) {
    const size_t taken = std::min(page - rest_.size(), bytes.size());
    rest_.insert(rest_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
    bytes = bytes.subspan(taken);
    if (rest_.size() < page) return absl::OkStatus();
    METAL_RETURN_IF_ERROR(CheckPage(rest_));
    rest_.clear();
  }
  for (; bytes.size() >= page; bytes = bytes.subspan(page)) {
    METAL_RETURN_IF_ERROR(CheckPage(bytes.first(page)));
  }
  rest_.assign(bytes.begin(), bytes.end());
  return absl::OkStatus();
}

absl::Status WalPages::CheckPage(std::span<const std::byte> page) {
  const base::Lsn address{header_.address.value + offset_};
  offset_ += page.size();
  if (IsZero(page.first(kShortHeaderSize))) ended_ = true;
  if (ended_) {
    if (address < needed_) {
      return Wrong(fmt::format("the page at {} is empty and WAL up to {} is needed",
                               address.ToString(), needed_.ToString()));
    }
    if (IsZero(page)) return absl::OkStatus();
    return Wrong(fmt::format("the page at {} follows an empty one", address.ToString()));
  }
  if (const auto magic = Load<uint16_t>(page, 0); magic != header_.page_magic) {
    return Wrong(fmt::format("the page at {} has the magic {:04X}", address.ToString(), magic));
  }
  if (const base::Lsn said{Load<uint64_t>(page, 8)}; said != address) {
    return Wrong(
        fmt::format("the page at {} says that it is at {}", address.ToString(), said.ToString()));
  }
  const auto timeline = Load<uint32_t>(page, 4);
  if (timeline < timeline_ || timeline == 0 || timeline > file_.timeline) {
    return Wrong(fmt::format("the page at {} is of timeline {}", address.ToString(), timeline));
  }
  timeline_ = timeline;
  return absl::OkStatus();
}

absl::Status WalPages::Finish() const {
  if (offset_ == header_.segment_size && rest_.empty()) return absl::OkStatus();
  return Wrong(fmt::format("it has {} bytes and should have {}", offset_ + rest_.size(),
                           header_.segment_size));
}

}  // namespace metal::backup
