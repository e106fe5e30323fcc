#include "agent/backup/clone_sender.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/base/fault_point.h"
#include "agent/base/log.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kFirstLook = absl::ZeroDuration();
constexpr size_t kWakeBatch = 4;

uint8_t Type(CloneMessage message) { return static_cast<uint8_t>(message); }

void Drain(int eventfd) {
  uint64_t count = 0;
  while (read(eventfd, &count, sizeof count) < 0 && errno == EINTR) {
  }
}

absl::Status CorruptPageError(const CorruptPage& page, size_t count) {
  return base::Error(absl::StatusCode::kDataLoss,
                     "{} block {}: {}{}. HINT: clone from another node, or restore a backup that "
                     "is not suspect",
                     page.path, page.block, page.reason,
                     count > 1 ? fmt::format("; so do {} more pages near it", count - 1) : "");
}

}  // namespace

CloneSender::CloneSender(Options options, base::Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      throttle_(options_.rate_limit, clock, options_.throttle),
      alone_since_(clock.Monotonic()) {
  for (size_t worker = 0; worker < kCloneLinksMax; ++worker) free_workers_.insert(worker);
}

// ---- ring thread

void CloneSender::Submit(CloneOutgoingPtr message) {
  message->sequence = ++last_sequence_;
  ++outstanding_;
  base::MutexLock lock(mutex_);
  queue_.push_back(std::move(message));
  WakeForWork(1);
}

void CloneSender::TakeAcknowledged(std::vector<CloneOutgoingPtr>& out) {
  base::MutexLock lock(mutex_);
  ring_sleeps_ = false;
  outstanding_ -= acknowledged_.size();
  std::move(acknowledged_.begin(), acknowledged_.end(), std::back_inserter(out));
  acknowledged_.clear();
}

bool CloneSender::PrepareToSleep() {
  base::MutexLock lock(mutex_);
  if (!acknowledged_.empty() || !failure_.ok()) return false;
  ring_sleeps_ = true;
  return true;
}

absl::Status CloneSender::Check() {
  base::MutexLock lock(mutex_);
  if (!failure_.ok()) return failure_;
  if (!links_.empty()) return absl::OkStatus();
  const absl::Duration patience = attached_once_ ? options_.patience : options_.first_patience;
  if (clock_.Monotonic() - alone_since_ < patience) return absl::OkStatus();
  return base::Error(absl::StatusCode::kUnavailable,
                     "the target has not been connected for {}. HINT: clone again",
                     absl::FormatDuration(patience));
}

// ---- any thread

void CloneSender::Wake(Link& link) {
  link.sleeping = false;
  const uint64_t one = 1;
  if (write(link.wake.get(), &one, sizeof one) != sizeof one) {
    base::LogWarning("clone.wake_failed errno={}", errno);
  }
}

void CloneSender::WakeForWork(size_t count) {
  for (Link& link : links_) {
    if (count == 0) return;
    if (!link.sleeping) continue;
    --count;
    Wake(link);
  }
}

void CloneSender::WakeAll() {
  for (Link& link : links_) Wake(link);
}

void CloneSender::Fail(const absl::Status& why) {
  {
    base::MutexLock lock(mutex_);
    if (failure_.ok()) failure_ = why;
    WakeAll();
    paced_.NotifyAll();
  }
  options_.wake();
}

void CloneSender::Finish() {
  base::MutexLock lock(mutex_);
  finished_ = true;
  WakeAll();
}

void CloneSender::AwaitAlone() {
  base::MutexLock lock(mutex_);
  while (!links_.empty()) left_.Wait(mutex_);
}

// ---- a connection's thread

absl::StatusOr<std::list<CloneSender::Link>::iterator> CloneSender::AddLink() {
  base::UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return base::ErrnoStatus(errno, "create", "eventfd");
  base::MutexLock lock(mutex_);
  if (free_workers_.empty()) {
    return base::Error(absl::StatusCode::kResourceExhausted,
                       "the session has {} connections already", links_.size());
  }
  Link& link = links_.emplace_back();
  link.wake = std::move(wake);
  link.worker = *free_workers_.begin();
  free_workers_.erase(free_workers_.begin());
  attached_once_ = true;
  return std::prev(links_.end());
}

// In the order of their numbers, before what was never sent.
void CloneSender::RemoveLink(std::list<Link>::iterator link) {
  base::MutexLock lock(mutex_);
  const size_t left = link->unacknowledged.size();
  for (CloneOutgoingPtr& message : link->unacknowledged) queue_.push_back(std::move(message));
  std::sort(queue_.begin(), queue_.end(),
            [](const auto& a, const auto& b) { return a->sequence < b->sequence; });
  free_workers_.insert(link->worker);
  links_.erase(link);
  if (links_.empty()) {
    alone_since_ = clock_.Monotonic();
    left_.NotifyAll();
  }
  WakeForWork(left);
}

absl::Status CloneSender::Serve(transfer::Channel& channel) {
  METAL_ASSIGN_OR_RETURN(const auto link, AddLink());
  absl::Status status = ServeLink(channel, *link);
  RemoveLink(link);
  base::MutexLock lock(mutex_);
  return finished_ ? absl::OkStatus() : status;
}

// The next message for this connection; null when there is none, or too much is under way: an
// answer wakes it then.
CloneOutgoingPtr CloneSender::Take(Link& link) {
  base::MutexLock lock(mutex_);
  link.sleeping = false;
  if (link.unacknowledged.size() < options_.window && !queue_.empty()) {
    CloneOutgoingPtr message = std::move(queue_.front());
    queue_.pop_front();
    return message;
  }
  link.sleeping = link.unacknowledged.size() < options_.window;
  return nullptr;
}

absl::Status CloneSender::ServeLink(transfer::Channel& channel, Link& link) {
  base::MonotonicTime heard = clock_.Monotonic();
  base::MonotonicTime said = heard;
  while (true) {
    {
      base::MutexLock lock(mutex_);
      if (finished_) return absl::OkStatus();
      if (!failure_.ok()) break;
    }
    if (CloneOutgoingPtr message = Take(link)) {
      METAL_RETURN_IF_ERROR(Send(channel, link, std::move(message)));
      said = clock_.Monotonic();
      METAL_RETURN_IF_ERROR(TakeAnswers(channel, link, kFirstLook));
      heard = said;
      continue;
    }
    METAL_ASSIGN_OR_RETURN(const bool readable,
                           channel.WaitReadable(transfer::kAliveInterval, link.wake.get()));
    Drain(link.wake.get());
    const base::MonotonicTime now = clock_.Monotonic();
    if (readable) {
      METAL_RETURN_IF_ERROR(TakeAnswers(channel, link, kFirstLook));
      heard = now;
    } else if (now - heard > transfer::kSilence) {
      return base::Error(absl::StatusCode::kUnavailable, "the target says nothing");
    }
    if (now - said >= transfer::kAliveInterval) {
      METAL_RETURN_IF_ERROR(channel.WriteMessage(Type(CloneMessage::kAlive), 0, ""));
      said = now;
    }
  }
  absl::Status failure;
  {
    base::MutexLock lock(mutex_);
    failure = failure_;
  }
  METAL_RETURN_IF_ERROR(
      channel.WriteMessage(Type(CloneMessage::kFailure), 0, EncodeFailure(failure)));
  return failure;
}

absl::Status CloneSender::Prepare(CloneOutgoing& message, size_t worker) {
  message.prepared = true;
  if (message.job == nullptr) return absl::OkStatus();
  FrameJob& job = *message.job;
  job.Run(worker);
  METAL_RETURN_IF_ERROR(job.status);
  if (!job.corrupt_pages.empty()) {
    return CorruptPageError(job.corrupt_pages.front(), job.corrupt_pages.size());
  }
  auto described = message.data.pieces.begin();
  for (const FramePiece& piece : job.pieces) {
    if (piece.got == 0) continue;
    described->crc32c = piece.crc32c;
    described->unsettled = piece.unsettled;
    ++described;
  }
  message.body = Encode(message.data);
  return base::FaultPoint("clone.source_frame");
}

// Waits until the rate allows `bytes`, for which `read` were read; the other side hears that we are
// there. CANCELLED when the clone has failed meanwhile: nothing was sent.
absl::Status CloneSender::Pace(transfer::Channel& channel, uint64_t bytes, uint64_t read) {
  absl::Duration left = throttle_.Book(bytes, read);
  while (left > absl::ZeroDuration()) {
    const absl::Duration slice = std::min(left, transfer::kAliveInterval);
    {
      base::MutexLock lock(mutex_);
      if (paced_.WaitFor(mutex_, slice,
                         [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !failure_.ok(); })) {
        return absl::CancelledError("the clone has failed");
      }
    }
    left -= slice;
    if (left > absl::ZeroDuration()) {
      METAL_RETURN_IF_ERROR(channel.WriteMessage(Type(CloneMessage::kAlive), 0, ""));
    }
  }
  return absl::OkStatus();
}

absl::Status CloneSender::Send(transfer::Channel& channel, Link& link, CloneOutgoingPtr message) {
  if (!message->prepared) {
    if (const absl::Status prepared = Prepare(*message, link.worker); !prepared.ok()) {
      Fail(prepared);
      return absl::OkStatus();  // the loop tells the target
    }
  }
  const bool empty = message->job != nullptr && message->job->raw_length == 0;
  if (empty) {
    Acknowledge(std::move(message));
    return absl::OkStatus();
  }
  const CloneOutgoing& sent = *message;
  {
    base::MutexLock lock(mutex_);
    link.unacknowledged.push_back(std::move(message));
  }
  if (sent.job == nullptr) {
    return channel.WriteMessage(Type(sent.type), sent.sequence, sent.body);
  }
  const auto header = sent.job->header();
  const auto payload = sent.job->payload();
  const absl::Status paced = Pace(channel, sent.job->stored_size(), sent.job->raw_length);
  if (absl::IsCancelled(paced)) return absl::OkStatus();  // the loop tells the target why
  METAL_RETURN_IF_ERROR(paced);
  std::string begin =
      transfer::EncodeMessage(Type(sent.type), sent.sequence, sent.body,
                              static_cast<uint32_t>(header.size() + payload.size()));
  begin.append(reinterpret_cast<const char*>(header.data()), header.size());
  METAL_RETURN_IF_ERROR(channel.Write(begin));
  return channel.Write(payload);
}

void CloneSender::Acknowledge(CloneOutgoingPtr message) {
  bool wake = false;
  {
    base::MutexLock lock(mutex_);
    acknowledged_.push_back(std::move(message));
    wake = ring_sleeps_ && (acknowledged_.size() >= kWakeBatch || queue_.size() <= links_.size());
    if (wake) ring_sleeps_ = false;
  }
  if (wake) options_.wake();
}

absl::Status CloneSender::TakeAnswers(transfer::Channel& channel, Link& link,
                                      absl::Duration timeout) {
  while (true) {
    METAL_ASSIGN_OR_RETURN(const bool readable, channel.WaitReadable(timeout));
    if (!readable) return absl::OkStatus();
    METAL_RETURN_IF_ERROR(TakeAnswer(channel, link));
  }
}

absl::Status CloneSender::TakeAnswer(transfer::Channel& channel, Link& link) {
  METAL_ASSIGN_OR_RETURN(const transfer::Channel::Received received, channel.ReadMessage());
  if (received.header.payload_length != 0) {
    return base::Error(absl::StatusCode::kDataLoss, "the target sent bulk data");
  }
  switch (static_cast<CloneMessage>(received.header.type)) {
    case CloneMessage::kAlive:
      return absl::OkStatus();
    case CloneMessage::kAck:
      break;
    default:
      return base::Error(absl::StatusCode::kDataLoss, "the target sent message {}",
                         received.header.type);
  }
  CloneOutgoingPtr message;
  {
    base::MutexLock lock(mutex_);
    auto& waiting = link.unacknowledged;
    const auto found = std::find_if(waiting.begin(), waiting.end(), [&](const auto& each) {
      return each->sequence == received.header.sequence;
    });
    if (found == waiting.end()) {
      return base::Error(absl::StatusCode::kDataLoss, "the target acknowledged message {}",
                         received.header.sequence);
    }
    message = std::move(*found);
    waiting.erase(found);
  }
  Acknowledge(std::move(message));
  return absl::OkStatus();
}

}  // namespace metal::backup
