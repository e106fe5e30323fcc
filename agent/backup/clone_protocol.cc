#include "agent/backup/clone_protocol.h"

#include "agent/base/status.h"
#include "agent/store/frame.h"
#include "agent/stream/page_checksum.h"
#include "agent/transfer/message.h"

namespace metal::backup {
namespace {

using transfer::FieldReader;
using transfer::FieldWriter;

constexpr size_t kNameMax = 255;
constexpr size_t kPathMax = 1024;
constexpr size_t kTextMax = 4096;
constexpr size_t kControlMax = 64 << 10;
constexpr size_t kMapMax = 128 << 10;   // of tablespaces
constexpr size_t kTablespaceLeast = 8;  // bytes of an OID and an empty location
constexpr size_t kPieceLeast = 54;      // of a piece without path and unsettled pages

absl::Status Bad(std::string_view what) {
  return base::Error(absl::StatusCode::kDataLoss,
                     "clone: {}. HINT: run the same metal-agent on both nodes", what);
}

void PutTablespaces(FieldWriter& out, const std::map<uint32_t, std::string>& tablespaces) {
  out.U32(static_cast<uint32_t>(tablespaces.size()));
  for (const auto& [oid, location] : tablespaces) out.U32(oid).Text(location);
}

std::map<uint32_t, std::string> TakeTablespaces(FieldReader& in) {
  std::map<uint32_t, std::string> tablespaces;
  for (uint32_t left = in.Count(kTablespaceLeast); left > 0 && in.ok(); --left) {
    const uint32_t oid = in.U32();
    tablespaces[oid] = in.Text(kPathMax);
  }
  return tablespaces;
}

template <typename Message>
absl::StatusOr<Message> Finish(const FieldReader& in, std::string_view what, Message message) {
  METAL_RETURN_IF_ERROR(in.Done(what));
  return message;
}

absl::Status CheckLocations(const std::map<uint32_t, std::string>& tablespaces) {
  for (const auto& [oid, location] : tablespaces) {
    if (oid == 0 || !location.starts_with("/") || location.find('\0') != std::string::npos) {
      return Bad("a tablespace has no absolute path");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPiece(const ClonePiece& piece) {
  if (!IsSafePath(piece.path)) return Bad("a file's path leads out of the directory");
  const bool fits = piece.length > 0 && piece.length <= store::kFrameRawMax &&
                    piece.frame_offset <= store::kFrameRawMax - piece.length &&
                    piece.file_offset <= piece.size &&
                    piece.length <= piece.size - piece.file_offset &&
                    piece.file_offset % store::kFrameRawMax == 0 && piece.size <= uint64_t{1} << 50;
  if (!fits || (piece.whole && piece.file_offset != 0)) return Bad("a piece of a file lies wrong");
  if ((piece.mode & ~07777u) != 0) return Bad("a file's mode is wrong");
  if (piece.checked && piece.length % stream::kPageSize != 0) return Bad("a page is cut off");
  return absl::OkStatus();
}

}  // namespace

bool IsSafePath(std::string_view path) {
  if (path.empty() || path.size() > kPathMax || path.find('\0') != std::string_view::npos) {
    return false;
  }
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

std::string Encode(const CloneHello& message) { return FieldWriter().Text(message.node_id).Take(); }

absl::StatusOr<CloneHello> DecodeCloneHello(std::string_view body) {
  FieldReader in(body);
  CloneHello message;
  message.node_id = in.Text(kNameMax);
  return Finish(in, "hello", std::move(message));
}

std::string Encode(const CloneWelcome& message) {
  FieldWriter out;
  out.Text(message.node_id).Text(message.boot_id).U64(message.device).U64(message.inode);
  out.Text(message.data_directory).U64(message.system_identifier);
  out.U32(static_cast<uint32_t>(message.postgres_major)).U32(message.catalog_version);
  out.U8(message.in_recovery ? 1 : 0);
  PutTablespaces(out, message.tablespaces);
  out.U32(static_cast<uint32_t>(message.bytes.size()));
  for (const auto& [oid, bytes] : message.bytes) out.U32(oid).U64(bytes);
  return out.Take();
}

absl::StatusOr<CloneWelcome> DecodeCloneWelcome(std::string_view body) {
  FieldReader in(body);
  CloneWelcome message;
  message.node_id = in.Text(kNameMax);
  message.boot_id = in.Text(kNameMax);
  message.device = in.U64();
  message.inode = in.U64();
  message.data_directory = in.Text(kTextMax);
  message.system_identifier = in.U64();
  message.postgres_major = static_cast<int>(in.U32() & 0xffff);
  message.catalog_version = in.U32();
  message.in_recovery = in.U8() != 0;
  message.tablespaces = TakeTablespaces(in);
  for (uint32_t left = in.Count(12); left > 0 && in.ok(); --left) {
    const uint32_t oid = in.U32();
    message.bytes[oid] = in.U64();
  }
  METAL_RETURN_IF_ERROR(CheckLocations(message.tablespaces));
  return Finish(in, "welcome", std::move(message));
}

std::string Encode(const CloneBegin& message) {
  return FieldWriter()
      .Text(message.label)
      .U64(message.replay_lsn.value)
      .U64(message.rate_limit)
      .Text(message.codec)
      .Take();
}

absl::StatusOr<CloneBegin> DecodeCloneBegin(std::string_view body) {
  FieldReader in(body);
  CloneBegin message;
  message.label = in.Text(kNameMax);
  message.replay_lsn = base::Lsn{in.U64()};
  message.rate_limit = in.U64();
  message.codec = in.Text(kNameMax);
  return Finish(in, "begin", std::move(message));
}

std::string Encode(const CloneStatus& message) { return FieldWriter().Text(message.phase).Take(); }

absl::StatusOr<CloneStatus> DecodeCloneStatus(std::string_view body) {
  FieldReader in(body);
  CloneStatus message;
  message.phase = in.Text(kNameMax);
  return Finish(in, "status", std::move(message));
}

std::string Encode(const ClonePlan& message) {
  FieldWriter out;
  out.Text(message.session).U64(message.start_lsn.value).U32(message.timeline);
  PutTablespaces(out, message.tablespaces);
  return out.U64(message.bytes).Take();
}

absl::StatusOr<ClonePlan> DecodeClonePlan(std::string_view body) {
  FieldReader in(body);
  ClonePlan message;
  message.session = in.Text(kCloneSessionIdSize);
  message.start_lsn = base::Lsn{in.U64()};
  message.timeline = in.U32();
  message.tablespaces = TakeTablespaces(in);
  message.bytes = in.U64();
  if (message.session.size() != kCloneSessionIdSize) return Bad("the plan names no session");
  METAL_RETURN_IF_ERROR(CheckLocations(message.tablespaces));
  return Finish(in, "plan", std::move(message));
}

std::string Encode(const CloneAttach& message) {
  return FieldWriter().Text(message.session).Take();
}

absl::StatusOr<CloneAttach> DecodeCloneAttach(std::string_view body) {
  FieldReader in(body);
  CloneAttach message;
  message.session = in.Text(kCloneSessionIdSize);
  if (message.session.size() != kCloneSessionIdSize) return Bad("the caller names no session");
  return Finish(in, "attach", std::move(message));
}

std::string Encode(const CloneGiveUp& message) {
  return FieldWriter().Text(message.session).Text(EncodeFailure(message.why)).Take();
}

absl::StatusOr<CloneGiveUp> DecodeCloneGiveUp(std::string_view body) {
  FieldReader in(body);
  CloneGiveUp message;
  message.session = in.Text(kCloneSessionIdSize);
  message.why = DecodeFailure(in.Text(2 * kTextMax));
  return Finish(in, "give up", std::move(message));
}

std::string Encode(const CloneData& message) {
  FieldWriter out;
  out.U32(static_cast<uint32_t>(message.pieces.size()));
  for (const ClonePiece& piece : message.pieces) {
    out.Text(piece.path).U64(piece.size).U64(static_cast<uint64_t>(piece.mtime)).U32(piece.mode);
    out.U64(piece.file_offset).U32(piece.frame_offset).U32(piece.length).U32(piece.crc32c);
    out.U8(piece.whole ? 1 : 0).U8(piece.checked ? 1 : 0).U32(piece.first_block);
    out.U32(static_cast<uint32_t>(piece.unsettled.size()));
    for (const base::BlockNumber block : piece.unsettled) out.U32(block);
  }
  return out.Take();
}

absl::StatusOr<CloneData> DecodeCloneData(std::string_view body) {
  FieldReader in(body);
  CloneData message;
  const uint32_t count = in.Count(kPieceLeast);
  if (!in.ok() || count == 0 || count > kClonePiecesMax) return Bad("a frame holds no files");
  message.pieces.resize(count);
  for (ClonePiece& piece : message.pieces) {
    piece.path = in.Text(kPathMax);
    piece.size = in.U64();
    piece.mtime = static_cast<int64_t>(in.U64());
    piece.mode = in.U32();
    piece.file_offset = in.U64();
    piece.frame_offset = in.U32();
    piece.length = in.U32();
    piece.crc32c = in.U32();
    piece.whole = in.U8() != 0;
    piece.checked = in.U8() != 0;
    piece.first_block = in.U32();
    for (uint32_t left = in.Count(sizeof(uint32_t)); left > 0 && in.ok(); --left) {
      piece.unsettled.push_back(in.U32());
    }
    if (!in.ok()) break;
    METAL_RETURN_IF_ERROR(CheckPiece(piece));
  }
  return Finish(in, "frame", std::move(message));
}

std::string Encode(const CloneEnd& message) {
  FieldWriter out;
  out.Text(message.control).Text(message.backup_label).Text(message.tablespace_map);
  out.U32(message.timeline).U64(message.stop_lsn.value).U64(message.files).U64(message.bytes);
  return out.Take();
}

absl::StatusOr<CloneEnd> DecodeCloneEnd(std::string_view body) {
  FieldReader in(body);
  CloneEnd message;
  message.control = in.Text(kControlMax);
  message.backup_label = in.Text(kTextMax);
  message.tablespace_map = in.Text(kMapMax);
  message.timeline = in.U32();
  message.stop_lsn = base::Lsn{in.U64()};
  message.files = in.U64();
  message.bytes = in.U64();
  return Finish(in, "end", std::move(message));
}

std::string EncodeFailure(const absl::Status& status) {
  const auto reason = base::GetReason(status);
  return FieldWriter()
      .U32(static_cast<uint32_t>(status.code()))
      .Text(reason ? std::string_view(reason->reason).substr(0, kNameMax) : std::string_view())
      .Text(std::string_view(status.message().data(), status.message().size()).substr(0, kTextMax))
      .Take();
}

absl::Status DecodeFailure(std::string_view body) {
  FieldReader in(body);
  const uint32_t code = in.U32();
  const std::string reason(in.Text(kNameMax));
  const std::string text(in.Text(kTextMax));
  if (const absl::Status read = in.Done("failure"); !read.ok()) return read;
  if (code == 0 || code > static_cast<uint32_t>(absl::StatusCode::kUnauthenticated)) {
    return Bad("a failure without a code");
  }
  const absl::Status status(static_cast<absl::StatusCode>(code), text);
  if (reason.empty() || reason.find_first_of(std::string_view("\n\0", 2)) != std::string::npos) {
    return status;
  }
  return base::WithReason(status, {reason, {}});
}

}  // namespace metal::backup
