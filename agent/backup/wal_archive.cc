#include "agent/backup/wal_archive.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>

#include "agent/backup/wal_reader.h"
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/store/repository.h"

namespace metal::backup {
namespace {

constexpr size_t kIdleCodecs = 4;                // 2 MiB each; more are made when more threads work
constexpr uint64_t kMaxBytesInMemory = 4 << 20;  // FetchBytes

std::string_view MessageOf(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

absl::Status Conflict(std::string_view name, const std::string& path) {
  return base::WithReason(
      base::Error(
          absl::StatusCode::kFailedPrecondition,
          "archive WAL file {}: {} holds other bytes under this name. HINT: two servers write this "
          "timeline, or a restored copy was promoted onto it; keep both files, find out which "
          "server is "
          "the right one, fence the other",
          name, path),
      {"WAL_CONFLICT", {{"file", std::string(name)}}});
}

// The bytes at the beginning that decide whether the file may enter.
absl::StatusOr<std::vector<std::byte>> Beginning(const WalSource& source) {
  std::vector<std::byte> bytes(std::min<uint64_t>(source.size(), kWalCheckBytes));
  METAL_RETURN_IF_ERROR(source.Read(0, bytes));
  return bytes;
}

// Whether the archived bytes equal the source's. An error: one of the two cannot be read.
absl::StatusOr<bool> EqualsSource(WalReader& reader, const WalSource& source,
                                  WalFrameCodec& codec) {
  if (reader.header().raw_bytes != source.size()) return false;
  std::vector<std::byte> expected(kWalFrameBytes);
  uint64_t offset = 0;
  while (true) {
    METAL_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, reader.Next(codec));
    if (piece.empty()) return true;
    const std::span<std::byte> wanted = std::span(expected).first(piece.size());
    METAL_RETURN_IF_ERROR(source.Read(offset, wanted));
    if (std::memcmp(wanted.data(), piece.data(), piece.size()) != 0) return false;
    offset += piece.size();
  }
}

absl::StatusOr<WalDigest> DigestOf(const WalSource& source) {
  WalDigest digest;
  std::vector<std::byte> piece(kWalFrameBytes);
  while (digest.raw_bytes() < source.size()) {
    const auto raw = std::span(piece).first(
        std::min<uint64_t>(kWalFrameBytes, source.size() - digest.raw_bytes()));
    METAL_RETURN_IF_ERROR(source.Read(digest.raw_bytes(), raw));
    digest.Add(raw);
  }
  return digest;
}

observe::Event FailureEvent(std::string_view name, const absl::Status& status) {
  const auto reason = base::GetReason(status);
  const bool conflict = reason && reason->reason == "WAL_CONFLICT";
  observe::Event event;
  event.severity = conflict ? observe::Severity::kCritical : observe::Severity::kError;
  event.type = conflict ? "wal.conflict" : "wal.push_failed";
  event.subject = std::string(name);
  event.message = std::string(MessageOf(status));
  return event;
}

}  // namespace

absl::Status NotReadable(std::string_view name, const absl::Status& status) {
  if (base::GetReason(status)) return status;  // it says already what is wrong with the archive
  return base::WithReason(
      base::Error(absl::IsNotFound(status) ? absl::StatusCode::kDataLoss : status.code(),
                  "whether WAL file {} is in the archive cannot be told: {}. HINT: it does not "
                  "count as missing; look at the disk of the repository (metalctl disk list)",
                  name, MessageOf(status)),
      {"REPOSITORY", {{"file", std::string(name)}}});
}

// A codec with its buffers, given back on destruction.
class WalArchive::CodecLease {
 public:
  static absl::StatusOr<CodecLease> Take(WalArchive& archive) {
    METAL_ASSIGN_OR_RETURN(std::unique_ptr<WalFrameCodec> codec, archive.TakeCodec());
    return CodecLease(archive, std::move(codec));
  }
  CodecLease(CodecLease&&) = default;
  ~CodecLease() {
    if (codec_ != nullptr) archive_.ReturnCodec(std::move(codec_));
  }
  WalFrameCodec& operator*() { return *codec_; }

 private:
  CodecLease(WalArchive& archive, std::unique_ptr<WalFrameCodec> codec)
      : archive_(archive), codec_(std::move(codec)) {}
  WalArchive& archive_;
  std::unique_ptr<WalFrameCodec> codec_;
};

WalArchive::WalArchive(WalArchiveOptions options, base::Clock& clock, observe::EventLog* events)
    : options_(std::move(options)), clock_(clock), events_(events) {}

WalArchive::~WalArchive() = default;

absl::Status WalArchive::Prepare() {
  base::MutexLock lock(prepare_mutex_);
  if (prepared_) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(
      const store::Repository repository,
      store::Repository::OpenKnown(options_.repository_path, options_.state_dir));
  METAL_ASSIGN_OR_RETURN(const std::vector<uint64_t> systems, repository.ListSystems());
  for (const uint64_t system : systems) {
    METAL_RETURN_IF_ERROR(
        RemoveAbandonedWal(base::JoinPath(repository.SystemDirectory(system), "wal/incoming")));
  }
  prepared_ = true;
  return absl::OkStatus();
}

absl::StatusOr<WalPushResult> WalArchive::Push(std::string_view name, int fd,
                                               uint64_t system_identifier) {
  auto source = WalSource::FromFd(fd, name);
  absl::StatusOr<WalPushResult> result =
      source.ok() ? PushSource(name, *source, system_identifier) : source.status();
  RecordPush(name, result);
  return result;
}

absl::StatusOr<WalPushResult> WalArchive::PushBytes(std::string_view name,
                                                    std::span<const std::byte> bytes,
                                                    uint64_t system_identifier) {
  auto result = PushSource(name, WalSource::FromBytes(bytes, name), system_identifier);
  RecordPush(name, result);
  return result;
}

absl::StatusOr<WalPushResult> WalArchive::PushSource(std::string_view name, const WalSource& source,
                                                     uint64_t system_identifier) {
  auto file = ParseWalFile(name);
  if (!file) return PlaceOf(name, system_identifier).status();
  METAL_ASSIGN_OR_RETURN(const std::vector<std::byte> beginning, Beginning(source));
  METAL_ASSIGN_OR_RETURN(const uint64_t owner,
                         CheckWalContent(*file, beginning, source.size(), system_identifier));
  METAL_RETURN_IF_ERROR(Prepare());
  METAL_RETURN_IF_ERROR(CheckRepository());
  METAL_ASSIGN_OR_RETURN(CodecLease codec, CodecLease::Take(*this));
  METAL_ASSIGN_OR_RETURN(const WalPushResult stored,
                         Store(PlaceOf(*std::move(file), owner), source, *codec));
  // Unmounted meanwhile: then the file went to the directory below the mount point.
  METAL_RETURN_IF_ERROR(CheckRepository());
  return stored;
}

absl::StatusOr<WalPushResult> WalArchive::Store(const Place& place, const WalSource& source,
                                                WalFrameCodec& codec) {
  METAL_ASSIGN_OR_RETURN(const bool present, base::Exists(place.path));
  if (present) return AcceptExisting(place, source, codec);
  auto stored = WriteWalObject({.path = place.path,
                                .incoming_directory = place.incoming_directory,
                                .system_identifier = place.system_identifier,
                                .name = place.file.name},
                               source, codec);
  if (absl::IsAlreadyExists(stored.status())) return AcceptExisting(place, source, codec);
  if (!stored.ok()) return base::Annotate(stored.status(), "archive WAL file " + place.file.name);
  return WalPushResult{place.system_identifier, source.size(), *stored, false};
}

absl::StatusOr<WalPushResult> WalArchive::AcceptExisting(const Place& place,
                                                         const WalSource& source,
                                                         WalFrameCodec& codec) {
  auto reader = WalReader::Open(place.path, place.system_identifier, place.file.name);
  if (absl::IsDataLoss(reader.status())) return Repair(place, source, reader.status(), codec);
  if (!reader.ok()) return reader.status();
  const absl::StatusOr<bool> equal = EqualsSource(*reader, source, codec);
  if (absl::IsDataLoss(equal.status())) return Repair(place, source, equal.status(), codec);
  if (!equal.ok()) return equal.status();
  if (!*equal) return Conflict(place.file.name, place.path);
  // Who stored it may have died between rename and fsync.
  METAL_RETURN_IF_ERROR(reader->Sync());
  METAL_RETURN_IF_ERROR(base::SyncDirectory(base::DirectoryOf(place.path)));
  return WalPushResult{place.system_identifier, source.size(),
                       kWalObjectHeaderSize + reader->header().stored_bytes, true};
}

// The archived file is damaged, but its header is whole and tells which bytes it held: the same
// bytes may replace it.
absl::StatusOr<WalPushResult> WalArchive::Repair(const Place& place, const WalSource& source,
                                                 const absl::Status& damage, WalFrameCodec& codec) {
  METAL_ASSIGN_OR_RETURN(
      const WalObjectHeader held,
      WalReader::ReadHeader(place.path, place.system_identifier, place.file.name));
  METAL_ASSIGN_OR_RETURN(const WalDigest digest, DigestOf(source));
  if (digest.raw_bytes() != held.raw_bytes || digest.digest() != held.digest ||
      digest.raw_crc32c() != held.raw_crc32c) {
    return Conflict(place.file.name, place.path);
  }
  METAL_ASSIGN_OR_RETURN(const uint64_t stored,
                         WriteWalObject({.path = place.path,
                                         .incoming_directory = place.incoming_directory,
                                         .system_identifier = place.system_identifier,
                                         .name = place.file.name,
                                         .replace = true},
                                        source, codec));
  observe::Event event;
  event.severity = observe::Severity::kWarning;
  event.type = "wal.repaired";
  event.subject = place.file.name;
  event.message =
      fmt::format("damaged archived WAL was replaced by the same bytes: {}", MessageOf(damage));
  Emit(std::move(event));
  return WalPushResult{place.system_identifier, source.size(), stored, false};
}

absl::StatusOr<uint64_t> WalArchive::Fetch(uint64_t system_identifier, std::string_view name,
                                           const WalSink& sink) {
  METAL_ASSIGN_OR_RETURN(const Place place, PlaceOf(name, system_identifier));
  auto reader = WalReader::Open(place.path, system_identifier, name);
  if (absl::IsNotFound(reader.status())) {
    METAL_RETURN_IF_ERROR(CheckRepository());
    return base::Error(absl::StatusCode::kNotFound,
                       "WAL file {} of cluster {} is not in the archive", name, system_identifier);
  }
  if (!reader.ok()) return NotReadable(name, reader.status());
  METAL_ASSIGN_OR_RETURN(CodecLease codec, CodecLease::Take(*this));
  while (true) {
    const absl::StatusOr<std::span<const std::byte>> piece = reader->Next(*codec);
    if (!piece.ok()) return NotReadable(name, piece.status());
    if (piece->empty()) break;
    METAL_RETURN_IF_ERROR(sink(*piece));
  }
  base::MutexLock lock(mutex_);
  ++statistics_.fetched;
  return reader->header().raw_bytes;
}

absl::StatusOr<std::string> WalArchive::FetchBytes(uint64_t system_identifier,
                                                   std::string_view name) {
  std::string bytes;
  const auto fetched = Fetch(system_identifier, name, [&](std::span<const std::byte> piece) {
    if (bytes.size() + piece.size() > kMaxBytesInMemory) {
      return base::Error(absl::StatusCode::kOutOfRange,
                         "WAL file {} is too long to be held in memory", name);
    }
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    return absl::OkStatus();
  });
  if (!fetched.ok()) return fetched.status();
  return bytes;
}

absl::Status WalArchive::Verify(uint64_t system_identifier, std::string_view name) {
  return Fetch(system_identifier, name, [](std::span<const std::byte>) { return absl::OkStatus(); })
      .status();
}

WalArchiveStatistics WalArchive::Statistics() {
  base::MutexLock lock(mutex_);
  return statistics_;
}

void WalArchive::DropEvents() {
  base::MutexLock lock(mutex_);
  events_ = nullptr;
}

WalArchive::Place WalArchive::PlaceOf(WalFile file, uint64_t system_identifier) const {
  const std::string wal =
      base::JoinPath(options_.repository_path, fmt::format("{}/wal", system_identifier));
  std::string path = fmt::format("{}/{:08X}/{}.wal", wal, file.timeline, file.name);
  return Place{std::move(file), system_identifier, std::move(path),
               base::JoinPath(wal, "incoming")};
}

absl::StatusOr<WalArchive::Place> WalArchive::PlaceOf(std::string_view name,
                                                      uint64_t system_identifier) const {
  auto file = ParseWalFile(name);
  if (!file) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "\"{}\" is not the name of a WAL file. HINT: give %f: a segment, .partial, "
                       ".history or .backup",
                       name.substr(0, 64));
  }
  if (system_identifier == 0) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "WAL file {}: no system identifier given. HINT: run metal-wal in the data "
                       "directory or give "
                       "--cluster",
                       name);
  }
  return PlaceOf(*std::move(file), system_identifier);
}

absl::Status WalArchive::CheckRepository() const {
  const auto repository =
      store::Repository::OpenNoted(options_.repository_path, options_.state_dir);
  if (repository.ok()) return absl::OkStatus();
  if (!absl::IsNotFound(repository.status())) return repository.status();
  return base::WithReason(
      base::Error(absl::StatusCode::kUnavailable,
                  "the repository {} is not there. HINT: is its filesystem mounted?",
                  options_.repository_path),
      {"REPOSITORY", {{"repository", options_.repository_path}}});
}

absl::StatusOr<std::unique_ptr<WalFrameCodec>> WalArchive::TakeCodec() {
  {
    base::MutexLock lock(mutex_);
    if (!idle_codecs_.empty()) {
      std::unique_ptr<WalFrameCodec> codec = std::move(idle_codecs_.back());
      idle_codecs_.pop_back();
      return codec;
    }
  }
  METAL_ASSIGN_OR_RETURN(std::unique_ptr<stream::Encoder> encoder,
                         stream::MakeEncoder(options_.codec, options_.level));
  return std::make_unique<WalFrameCodec>(std::move(encoder), stream::MakeDecoder());
}

void WalArchive::ReturnCodec(std::unique_ptr<WalFrameCodec> codec) {
  base::MutexLock lock(mutex_);
  if (idle_codecs_.size() < kIdleCodecs) idle_codecs_.push_back(std::move(codec));
}

// One event for each change: a file that fails again and again in the same way says so once.
void WalArchive::RecordPush(std::string_view name, const absl::StatusOr<WalPushResult>& result) {
  const absl::Time now = clock_.Now();
  std::optional<observe::Event> event;
  {
    base::MutexLock lock(mutex_);
    if (result.ok()) {
      if (!statistics_.last_error.empty()) {
        event.emplace();
        event->type = "wal.push_recovered";
        event->subject = std::string(name);
        event->message = fmt::format("WAL is archived again, {} was the first", name);
      }
      ++(result->already_present ? statistics_.already_present : statistics_.pushed);
      if (!result->already_present) {
        statistics_.raw_bytes += result->raw_bytes;
        statistics_.stored_bytes += result->stored_bytes;
      }
      statistics_.last_pushed = std::string(name);
      statistics_.last_pushed_time = now;
      statistics_.last_error.clear();
      ++push_revision_;
      pushed_.NotifyAll();
    } else {
      const std::string_view message = MessageOf(result.status());
      const std::string_view shown = name.substr(0, 64);
      if (statistics_.last_error != message || statistics_.last_failed != shown) {
        event = FailureEvent(shown, result.status());
      }
      ++statistics_.failed;
      statistics_.last_error = std::string(message);
      statistics_.last_failed = std::string(shown);
      statistics_.last_failed_time = now;
    }
  }
  if (event) Emit(*std::move(event));
}

void WalArchive::Emit(observe::Event event) {
  base::MutexLock lock(mutex_);  // Append does not block on the disk
  if (events_ != nullptr) events_->Append(std::move(event));
}

}  // namespace metal::backup
