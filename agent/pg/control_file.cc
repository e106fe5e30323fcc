#include "agent/pg/control_file.h"

#include <cstring>

#include "agent/base/clock.h"
#include "agent/base/crc32c.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

// Byte offsets in the file; the same in every layout up to the checksum version.
constexpr size_t kSystemIdentifier = 0;
constexpr size_t kControlVersion = 8;
constexpr size_t kCatalogVersion = 12;
constexpr size_t kState = 16;
constexpr size_t kTime = 24;
constexpr size_t kCheckpoint = 32;
constexpr size_t kCheckpointCopy = 40;  // struct CheckPoint, 88 bytes
constexpr size_t kRedo = kCheckpointCopy + 0;
constexpr size_t kTimeline = kCheckpointCopy + 8;
constexpr size_t kPreviousTimeline = kCheckpointCopy + 12;
constexpr size_t kFullPageWrites = kCheckpointCopy + 16;
constexpr size_t kNextXid = kCheckpointCopy + 24;
constexpr size_t kCheckpointTime = kCheckpointCopy + 64;
constexpr size_t kMinRecovery = 136;
constexpr size_t kMinRecoveryTimeline = 144;
constexpr size_t kBackupStart = 152;
constexpr size_t kBackupEnd = 160;
constexpr size_t kBackupEndRequired = 168;
constexpr size_t kWalLevel = 172;
constexpr size_t kWalLogHints = 176;
constexpr size_t kMaxConnections = 180;
constexpr size_t kMaxWorkerProcesses = 184;
constexpr size_t kMaxWalSenders = 188;
constexpr size_t kMaxPreparedTransactions = 192;
constexpr size_t kMaxLocksPerTransaction = 196;
constexpr size_t kTrackCommitTimestamp = 200;
constexpr size_t kBlockSize = 216;
constexpr size_t kSegmentBlocks = 220;
constexpr size_t kWalBlockSize = 224;
constexpr size_t kWalSegmentSize = 228;
constexpr size_t kChecksumVersion = 252;

struct Layout {
  uint32_t version;
  size_t crc_offset;
};
// 1800 has default_char_signedness before the nonce, which moves the CRC.
constexpr Layout kLayouts[] = {{1300, 288}, {1700, 288}, {1800, 292}};
constexpr size_t kShortest = 292;  // crc_offset + 4 of the shortest layout

template <typename T>
T Load(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

bool PowerOfTwoBetween(uint64_t value, uint64_t low, uint64_t high) {
  return value >= low && value <= high && (value & (value - 1)) == 0;
}

absl::Status CheckFields(const ControlFile& control, uint32_t state) {
  const auto bad = [](std::string_view field, uint64_t value) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "pg_control: {} is {}, which no supported server writes", field, value);
  };
  if (state > static_cast<uint32_t>(ControlState::kInProduction)) return bad("state", state);
  if (!PowerOfTwoBetween(control.block_size, 1024, 32768))
    return bad("block size", control.block_size);
  if (!PowerOfTwoBetween(control.wal_segment_size, base::kMiB, base::kGiB))
    return bad("WAL segment size", control.wal_segment_size);
  if (!PowerOfTwoBetween(control.wal_block_size, 1024, 65536))
    return bad("WAL block size", control.wal_block_size);
  if (control.segment_blocks == 0) return bad("blocks of a relation segment", 0);
  return absl::OkStatus();
}

ControlFile DecodeFields(std::span<const std::byte> bytes) {
  ControlFile control;
  control.system_identifier = Load<uint64_t>(bytes, kSystemIdentifier);
  control.control_version = Load<uint32_t>(bytes, kControlVersion);
  control.catalog_version = Load<uint32_t>(bytes, kCatalogVersion);
  control.state = static_cast<ControlState>(Load<uint32_t>(bytes, kState));
  control.modified = absl::FromUnixSeconds(Load<int64_t>(bytes, kTime));
  control.checkpoint.value = Load<uint64_t>(bytes, kCheckpoint);
  control.redo.value = Load<uint64_t>(bytes, kRedo);
  control.timeline = Load<uint32_t>(bytes, kTimeline);
  control.previous_timeline = Load<uint32_t>(bytes, kPreviousTimeline);
  control.full_page_writes = Load<uint8_t>(bytes, kFullPageWrites) != 0;
  control.next_xid = Load<uint64_t>(bytes, kNextXid);
  control.checkpoint_time = absl::FromUnixSeconds(Load<int64_t>(bytes, kCheckpointTime));
  control.min_recovery.value = Load<uint64_t>(bytes, kMinRecovery);
  control.min_recovery_timeline = Load<uint32_t>(bytes, kMinRecoveryTimeline);
  control.backup_start.value = Load<uint64_t>(bytes, kBackupStart);
  control.backup_end.value = Load<uint64_t>(bytes, kBackupEnd);
  control.backup_end_required = Load<uint8_t>(bytes, kBackupEndRequired) != 0;
  control.wal_level = Load<int32_t>(bytes, kWalLevel);
  control.wal_log_hints = Load<uint8_t>(bytes, kWalLogHints) != 0;
  control.max_connections = Load<int32_t>(bytes, kMaxConnections);
  control.max_worker_processes = Load<int32_t>(bytes, kMaxWorkerProcesses);
  control.max_wal_senders = Load<int32_t>(bytes, kMaxWalSenders);
  control.max_prepared_transactions = Load<int32_t>(bytes, kMaxPreparedTransactions);
  control.max_locks_per_transaction = Load<int32_t>(bytes, kMaxLocksPerTransaction);
  control.track_commit_timestamp = Load<uint8_t>(bytes, kTrackCommitTimestamp) != 0;
  control.block_size = Load<uint32_t>(bytes, kBlockSize);
  control.segment_blocks = Load<uint32_t>(bytes, kSegmentBlocks);
  control.wal_block_size = Load<uint32_t>(bytes, kWalBlockSize);
  control.wal_segment_size = Load<uint32_t>(bytes, kWalSegmentSize);
  control.checksum_version = Load<uint32_t>(bytes, kChecksumVersion);
  return control;
}

}  // namespace

std::string_view ControlStateName(ControlState state) {
  switch (state) {
    case ControlState::kStartingUp:
      return "starting up";
    case ControlState::kShutDown:
      return "shut down";
    case ControlState::kShutDownInRecovery:
      return "shut down in recovery";
    case ControlState::kShuttingDown:
      return "shutting down";
    case ControlState::kInCrashRecovery:
      return "in crash recovery";
    case ControlState::kInArchiveRecovery:
      return "in archive recovery";
    case ControlState::kInProduction:
      return "in production";
  }
  return "unknown";
}

std::string_view WalLevelName(int wal_level) {
  constexpr std::string_view kNames[] = {"minimal", "replica", "logical"};
  return wal_level >= 0 && wal_level < 3 ? kNames[wal_level] : "unknown";
}

int MajorVersionOf(const ControlFile& control) {
  struct Row {
    uint32_t catalog;
    int major;
  };
  constexpr Row kCatalogs[] = {{202007201, 13}, {202107181, 14}, {202209061, 15},
                               {202307071, 16}, {202406281, 17}, {202506291, 18}};
  for (const Row& row : kCatalogs) {
    if (row.catalog == control.catalog_version) return row.major;
  }
  return 0;
}

absl::StatusOr<ControlFile> DecodeControlFile(std::span<const std::byte> bytes) {
  if (bytes.size() < kShortest) {
    return base::Error(absl::StatusCode::kDataLoss, "pg_control: has {} bytes, needs {}",
                       bytes.size(), kShortest);
  }
  const uint32_t version = Load<uint32_t>(bytes, kControlVersion);
  const Layout* layout = nullptr;
  for (const Layout& candidate : kLayouts) {
    if (candidate.version == version) layout = &candidate;
  }
  // The CRC of an unknown layout cannot be found; a torn or overwritten version field looks the
  // same.
  if (layout == nullptr) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "pg_control: version {} is not one of 1300, 1700, 1800. HINT: PostgreSQL 13 to 18 "
        "are supported",
        version);
  }
  if (bytes.size() < layout->crc_offset + sizeof(uint32_t)) {
    return base::Error(absl::StatusCode::kDataLoss, "pg_control: has {} bytes, needs {}",
                       bytes.size(), layout->crc_offset + sizeof(uint32_t));
  }
  const uint32_t stored = Load<uint32_t>(bytes, layout->crc_offset);
  const uint32_t computed = base::Crc32c(bytes.first(layout->crc_offset));
  if (stored != computed) {
    return base::Error(
        absl::StatusCode::kDataLoss,
        "pg_control: CRC is {:08x}, computed {:08x}. HINT: a torn read or a damaged file", stored,
        computed);
  }
  const ControlFile control = DecodeFields(bytes);
  METAL_RETURN_IF_ERROR(CheckFields(control, Load<uint32_t>(bytes, kState)));
  return control;
}

absl::StatusOr<ControlFile> ReadControlFile(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, "global/pg_control");
  std::string previous;
  // Each torn read gives other bytes; a server writes the file at most a few times a second.
  for (int attempt = 0; attempt < 100; ++attempt) {
    METAL_ASSIGN_OR_RETURN(std::string text, base::ReadFile(path, 64 * base::kKiB));
    absl::StatusOr<ControlFile> control = DecodeControlFile(std::as_bytes(std::span(text)));
    if (control.ok() || text == previous) {
      if (!control.ok()) return base::Annotate(control.status(), path);
      return control;
    }
    previous = std::move(text);
    base::RealClock().Sleep(absl::Milliseconds(50));
  }
  return base::Error(absl::StatusCode::kDataLoss,
                     "{}: changes under every read and its CRC never matches", path);
}

}  // namespace metal::pg
