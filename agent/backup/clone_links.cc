// The connections' threads of a CloneReceiver.
#include <algorithm>
#include <array>

#include "agent/backup/clone_piece.h"
#include "agent/backup/clone_receiver.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/store/frame.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kConnect = absl::Seconds(5);
constexpr absl::Duration kBackoffMin = absl::Milliseconds(50);
constexpr absl::Duration kBackoffMax = absl::Seconds(2);
constexpr size_t kFrameBytes = store::kFrameHeaderSize + store::kFrameStoredMax;

uint8_t Type(CloneMessage message) { return static_cast<uint8_t>(message); }

}  // namespace

bool CloneReceiver::stopping() {
  base::MutexLock lock(mutex_);
  return stopping_ || all_received_;
}

void CloneReceiver::Fail(const absl::Status& why) {
  bool wake = false;
  {
    base::MutexLock lock(mutex_);
    if (failure_.ok()) failure_ = why;
    stopping_ = true;
    for (const auto& link : links_) {
      if (link->channel != nullptr) link->channel->Interrupt();
    }
    wake = ring_sleeps_;
    changed_.NotifyAll();
  }
  if (wake) engine_->Wake();
}

void CloneReceiver::Deliver(Arrival arrival) {
  bool wake = false;
  {
    base::MutexLock lock(mutex_);
    arrivals_.push_back(std::move(arrival));
    wake = ring_sleeps_;
    ring_sleeps_ = false;
  }
  if (wake) engine_->Wake();
}

bool CloneReceiver::Claim(uint64_t sequence) {
  base::MutexLock lock(mutex_);
  heard_ = clock_.Monotonic();
  if (sequence <= received_up_to_ || !received_beyond_.insert(sequence).second) return false;
  while (!received_beyond_.empty() && *received_beyond_.begin() == received_up_to_ + 1) {
    received_beyond_.erase(received_beyond_.begin());
    ++received_up_to_;
  }
  return true;
}

absl::StatusOr<CloneReceiver::Job*> CloneReceiver::AcquireJob(transfer::Channel& channel) {
  while (true) {
    {
      base::MutexLock lock(mutex_);
      if (free_jobs_.empty() && !stopping_) changed_.WaitFor(mutex_, transfer::kAliveInterval);
      if (stopping_) return absl::CancelledError("the clone ends");
      if (!free_jobs_.empty()) {
        Job* const job = free_jobs_.back();
        free_jobs_.pop_back();
        job->frame.Reset();
        return job;
      }
      heard_ = clock_.Monotonic();  // it is this node that is slow
    }
    METAL_RETURN_IF_ERROR(channel.WriteMessage(Type(CloneMessage::kAlive), 0, ""));
  }
}

void CloneReceiver::ReleaseJob(Job* job) {
  base::MutexLock lock(mutex_);
  free_jobs_.push_back(job);
  changed_.NotifyOne();
}

void CloneReceiver::LinkLoop(Link& link) {
  absl::Duration backoff = kBackoffMin;
  while (!stopping()) {
    const base::MonotonicTime begun = clock_.Monotonic();
    const absl::Status status = ServeOnce(link);
    if (stopping()) return;
    if (link.refused) return Fail(status);
    base::LogWarning("clone.connection_lost link={} reason=\"{}\"", link.index,
                     std::string(status.message()));
    base::MutexLock lock(mutex_);
    ++reconnects_;
    if (clock_.Monotonic() - heard_ >= options_.patience) {
      if (failure_.ok()) {
        failure_ = base::Error(absl::StatusCode::kUnavailable,
                               "the source {} was not reached for {}: {}. HINT: clone again when "
                               "its agent answers",
                               options_.source.ToString(), absl::FormatDuration(options_.patience),
                               std::string(status.message()));
      }
      return;  // the ring thread looks at its next turn
    }
    if (clock_.Monotonic() - begun > kBackoffMax) backoff = kBackoffMin;
    changed_.WaitFor(mutex_, backoff, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return stopping_ || all_received_;
    });
    backoff = std::min(backoff * 2, kBackoffMax);
  }
}

absl::Status CloneReceiver::ServeOnce(Link& link) {
  METAL_ASSIGN_OR_RETURN(const auto channel,
                         transfer::Channel::Connect(options_.source, options_.tls, kConnect));
  {
    base::MutexLock lock(mutex_);
    if (stopping_) return absl::CancelledError("the clone ends");
    link.channel = channel.get();
  }
  absl::Status status =
      channel->WriteMessage(Type(CloneMessage::kAttach), 0, Encode(CloneAttach{options_.session}));
  while (status.ok()) status = TakeMessage(*channel, link);
  base::MutexLock lock(mutex_);
  link.channel = nullptr;
  return status;
}

absl::Status CloneReceiver::TakeMessage(transfer::Channel& channel, Link& link) {
  METAL_ASSIGN_OR_RETURN(const auto received, channel.ReadMessage());
  const auto type = static_cast<CloneMessage>(received.header.type);
  if (type == CloneMessage::kData) return TakeData(channel, link, received);
  if (received.header.payload_length != 0) return CloneDamage("a message has a payload");
  switch (type) {
    case CloneMessage::kAttached:
    case CloneMessage::kAlive: {
      base::MutexLock lock(mutex_);
      heard_ = clock_.Monotonic();
      break;
    }
    case CloneMessage::kRecords:
      METAL_RETURN_IF_ERROR(TakeRecords(received));
      return channel.WriteMessage(Type(CloneMessage::kAck), received.header.sequence, "");
    case CloneMessage::kEnd: {
      METAL_ASSIGN_OR_RETURN(CloneEnd end, DecodeCloneEnd(received.body));
      const bool first = Claim(received.header.sequence);
      {
        // Before the source hears it and closes the other connections.
        base::MutexLock lock(mutex_);
        all_received_ = true;
        changed_.NotifyAll();
      }
      const absl::Status told =
          channel.WriteMessage(Type(CloneMessage::kAck), received.header.sequence, "");
      if (!first) return told;
      Arrival arrival;
      arrival.end = std::move(end);
      Deliver(std::move(arrival));
      return told;
    }
    case CloneMessage::kFailure:
      link.refused = true;
      return base::Annotate(DecodeFailure(received.body), "source");
    default:
      return CloneDamage(fmt::format("message {} is out of place", received.header.type));
  }
  return channel.WriteMessage(Type(CloneMessage::kAlive), 0, "");
}

absl::Status CloneReceiver::TakeRecords(const transfer::Channel::Received& received) {
  Arrival arrival;
  std::string_view rest = received.body;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) return CloneDamage("a record is cut off");
    FileListRecord& record = arrival.records.emplace_back();
    METAL_RETURN_IF_ERROR(ParseRecord(rest.substr(0, end), record));
    const bool known = record.kind == RecordKind::kDirectory || record.kind == RecordKind::kFile;
    if (!known || !IsSafePath(record.file.path)) return CloneDamage("a record is out of place");
    rest.remove_prefix(end + 1);
  }
  if (Claim(received.header.sequence)) Deliver(std::move(arrival));
  return absl::OkStatus();
}

// The bytes land where they are written from, but for a frame that is compressed.
absl::Status CloneReceiver::ReadFrame(transfer::Channel& channel, Link& link, uint32_t length,
                                      Job& job) {
  if (length <= store::kFrameHeaderSize || length > kFrameBytes) {
    return CloneDamage("a frame's length is out of range");
  }
  std::array<std::byte, store::kFrameHeaderSize> bytes;
  METAL_RETURN_IF_ERROR(channel.Read(bytes));
  METAL_ASSIGN_OR_RETURN(const store::FrameHeader header, store::DecodeFrameHeader(bytes));
  if (header.stored_length != length - store::kFrameHeaderSize) {
    return CloneDamage("a frame is longer than its message");
  }
  if (header.codec == stream::CodecKind::kNone) {
    if (header.raw_length != header.stored_length) return CloneDamage("a frame's lengths differ");
    METAL_RETURN_IF_ERROR(channel.Read(job.frame.raw.first(header.raw_length)));
    return VerifyPieces(job, header.raw_length);
  }
  if (link.encoded.size() == 0) link.encoded = uring::AlignedBuffer(kFrameBytes);
  std::copy(bytes.begin(), bytes.end(), link.encoded.span().begin());
  METAL_RETURN_IF_ERROR(
      channel.Read(link.encoded.span().subspan(store::kFrameHeaderSize, header.stored_length)));
  METAL_RETURN_IF_ERROR(
      store::DecodeFrame(link.encoded.span().first(length), job.frame.raw, *decoders_[link.index])
          .status());
  return VerifyPieces(job, header.raw_length);
}

absl::Status CloneReceiver::VerifyPieces(const Job& job, uint32_t raw_length) const {
  for (const ClonePiece& piece : job.data.pieces) {
    if (piece.frame_offset + piece.length > raw_length) return CloneDamage("a piece is cut off");
    METAL_RETURN_IF_ERROR(
        VerifyPiece(piece, job.frame.raw.subspan(piece.frame_offset, piece.length)));
  }
  return absl::OkStatus();
}

absl::Status CloneReceiver::WriteWholeFiles(Job& job) {
  for (const ClonePiece& piece : job.data.pieces) {
    if (!piece.whole) continue;
    const auto bytes = job.frame.raw.subspan(piece.frame_offset, piece.length);
    const FileEntry entry = EntryOf(piece);
    absl::Status written = WriteSmallFile(target_->directory(), entry, bytes);
    if (absl::IsNotFound(written)) {
      METAL_RETURN_IF_ERROR(MakeParents(target_->directory(), piece.path));
      written = WriteSmallFile(target_->directory(), entry, bytes);
    }
    METAL_RETURN_IF_ERROR(WithSpaceReason(base::Annotate(written, options_.target_directory),
                                          options_.target_directory));
    progress_.AddDone(piece.length);
  }
  return absl::OkStatus();
}

absl::Status CloneReceiver::TakeData(transfer::Channel& channel, Link& link,
                                     const transfer::Channel::Received& received) {
  METAL_ASSIGN_OR_RETURN(CloneData data, DecodeCloneData(received.body));
  METAL_ASSIGN_OR_RETURN(Job* const job, AcquireJob(channel));
  job->data = std::move(data);
  const absl::Status read = ReadFrame(channel, link, received.header.payload_length, *job);
  const bool first = read.ok() && Claim(received.header.sequence);
  if (!first) {
    ReleaseJob(job);
    METAL_RETURN_IF_ERROR(read);
    return channel.WriteMessage(Type(CloneMessage::kAck), received.header.sequence, "");
  }
  const absl::Status written = WriteWholeFiles(*job);
  const auto& pieces = job->data.pieces;
  const bool parts =
      std::any_of(pieces.begin(), pieces.end(), [](const ClonePiece& each) { return !each.whole; });
  if (written.ok() && parts) {
    Arrival arrival;
    arrival.job = job;
    Deliver(std::move(arrival));
  } else {
    ReleaseJob(job);
  }
  if (!written.ok()) {
    Fail(written);
    return written;
  }
  return channel.WriteMessage(Type(CloneMessage::kAck), received.header.sequence, "");
}

}  // namespace metal::backup
