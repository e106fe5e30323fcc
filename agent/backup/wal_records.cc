#include "agent/backup/wal_records.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr size_t kPageSize =
    8192;  // XLOG_BLCKSZ, as servers are built; the page header says it too
constexpr size_t kShortHeader = 24, kLongHeader = 40;
constexpr uint16_t kFirstIsContinued = 0x0001, kLongHeaderFlag = 0x0002, kOverwritten = 0x0008;
constexpr size_t kRecordHeader = 24;
constexpr uint64_t kRecordMax = 1 << 30;  // XLogRecordMaxSize is a little less
constexpr uint64_t kWantedMax = 64 << 10;
constexpr std::byte kShortData{255}, kLongData{254}, kOrigin{253}, kTopLevelXid{252};

template <typename T>
T Load(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);  // WAL is in the host's byte order
  return value;
}

base::Lsn Aligned(base::Lsn at) { return base::Lsn{(at.value + 7) & ~uint64_t{7}}; }

}  // namespace

absl::StatusOr<std::span<const std::byte>> MainDataOf(const WalRecord& record) {
  std::span<const std::byte> rest = record.body;
  while (!rest.empty()) {
    const std::byte id = rest[0];
    size_t header = 0;
    if (id == kShortData) header = 2;
    if (id == kLongData) header = 5;
    if (header != 0 && rest.size() >= header) {
      const uint64_t length =
          header == 2 ? Load<uint8_t>(rest, 1) : uint64_t{Load<uint32_t>(rest, 1)};
      rest = rest.subspan(header);
      if (rest.size() == length) return rest;
      break;
    }
    const size_t skipped = id == kOrigin ? 3 : id == kTopLevelXid ? 5 : 0;
    if (skipped == 0 || rest.size() < skipped) break;
    rest = rest.subspan(skipped);
  }
  return base::Error(absl::StatusCode::kDataLoss, "WAL record at {} has no main data alone",
                     record.start.ToString());
}

WalRecords::WalRecords(Options options, Handler handler)
    : options_(options),
      handler_(std::move(handler)),
      page_start_{options.from.value - options.from.value % options.segment_size},
      reached_(options.from) {}

absl::Status WalRecords::Lost(base::Lsn at, std::string_view what) const {
  return base::Error(absl::StatusCode::kDataLoss, "follow WAL records: at {}: {}", at.ToString(),
                     what);
}

absl::Status WalRecords::Add(std::span<const std::byte> bytes) {
  if (!rest_.empty()) {
    const size_t taken = std::min(kPageSize - rest_.size(), bytes.size());
    rest_.insert(rest_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
    bytes = bytes.subspan(taken);
    if (rest_.size() < kPageSize) return absl::OkStatus();
    METAL_RETURN_IF_ERROR(TakePage(rest_));
    rest_.clear();
  }
  for (; bytes.size() >= kPageSize; bytes = bytes.subspan(kPageSize)) {
    METAL_RETURN_IF_ERROR(TakePage(bytes.first(kPageSize)));
  }
  rest_.assign(bytes.begin(), bytes.end());
  return absl::OkStatus();
}

// Looks at the page's header and answers where its first new byte is.
absl::StatusOr<size_t> WalRecords::EnterPage(base::Lsn start, std::span<const std::byte> page) {
  const auto info = Load<uint16_t>(page, 2);
  const size_t header = (info & kLongHeaderFlag) != 0 ? kLongHeader : kShortHeader;
  if (!begun_) {
    begun_ = true;
    const uint64_t offset = options_.from.value - start.value;
    if (offset < header) return Lost(options_.from, "no record begins inside a page's header");
    return offset;
  }
  const auto continued = (info & kFirstIsContinued) != 0 ? Load<uint32_t>(page, 16) : 0;
  if ((info & kOverwritten) != 0) {
    // The server died while it wrote the record that began before, and went on with another one.
    missing_ = 0;
    kept_.clear();
  } else if (continued != missing_) {
    return Lost(start, fmt::format("{} bytes of a record are missing, the page has {}", missing_,
                                   continued));
  }
  return header;
}

absl::Status WalRecords::TakePage(std::span<const std::byte> page) {
  const base::Lsn start = page_start_;
  page_start_.value += page.size();
  if (start.value % options_.segment_size == 0) switched_ = false;
  if (switched_ || page_start_ <= options_.from) return absl::OkStatus();
  if (missing_ == 0 && start >= options_.to) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(size_t at, EnterPage(start, page));
  while (at < page.size()) {
    if (missing_ == 0) {
      at = (at + 7) & ~size_t{7};
      if (at >= page.size()) break;
      record_start_ = base::Lsn{start.value + at};
      if (record_start_ >= options_.to) {
        reached_ = record_start_;
        break;
      }
      METAL_RETURN_IF_ERROR(StartRecord(Load<uint32_t>(page, at)));
      if (switched_) return absl::OkStatus();
    }
    const size_t taken = std::min<uint64_t>(page.size() - at, missing_);
    METAL_RETURN_IF_ERROR(TakePart(page.subspan(at, taken)));
    at += taken;
    if (missing_ != 0) continue;
    reached_ = Aligned(base::Lsn{start.value + at});
    METAL_RETURN_IF_ERROR(EndRecord());
  }
  return absl::OkStatus();
}

absl::Status WalRecords::StartRecord(uint64_t length) {
  if (length == 0) {
    // After the record that ends a segment early.
    const uint64_t size = options_.segment_size;
    switched_ = true;
    reached_.value = record_start_.value - record_start_.value % size + size;
    return absl::OkStatus();
  }
  if (length < kRecordHeader || length > kRecordMax) {
    return Lost(record_start_, fmt::format("a record of {} bytes", length));
  }
  missing_ = length;
  return absl::OkStatus();
}

// Keeps the header, and the body of a record that is wanted.
absl::Status WalRecords::TakePart(std::span<const std::byte> part) {
  missing_ -= part.size();
  const auto keep = [&](size_t count) {
    kept_.insert(kept_.end(), part.begin(), part.begin() + static_cast<ptrdiff_t>(count));
    part = part.subspan(count);
  };
  if (kept_.size() < kRecordHeader) {
    keep(std::min(kRecordHeader - kept_.size(), part.size()));
    if (kept_.size() < kRecordHeader) return absl::OkStatus();
    if (Load<uint64_t>(kept_, 8) >= record_start_.value) {
      return Lost(record_start_, "its predecessor lies behind it");
    }
    wanted_ = Load<uint8_t>(kept_, 17) == options_.resource_manager;
    if (wanted_ && Load<uint32_t>(kept_, 0) > kWantedMax) {
      return Lost(record_start_, "the record is longer than any of its kind");
    }
  }
  if (wanted_) keep(part.size());
  return absl::OkStatus();
}

absl::Status WalRecords::EndRecord() {
  absl::Status status;
  if (wanted_) {
    status = handler_({record_start_, Load<uint8_t>(kept_, 16),
                       std::span<const std::byte>(kept_).subspan(kRecordHeader)});
  }
  kept_.clear();
  wanted_ = false;
  return status;
}

absl::Status WalRecords::Finish() const {
  if (reached_ >= options_.to && missing_ == 0) return absl::OkStatus();
  return Lost(reached_, fmt::format("the WAL ends, {} was to be reached", options_.to.ToString()));
}

}  // namespace metal::backup
