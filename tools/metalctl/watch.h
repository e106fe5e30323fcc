// One server stream, read in slices, so that Ctrl-C and an agent that falls silent are noticed
// while nothing comes. Threading: one thread.
#pragma once

#include <csignal>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"

namespace metal::ctl {

// While one exists, SIGINT does not end the process: it is remembered until Clear(). One at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool Pressed();
  static void Clear();

 private:
  struct sigaction before_ {};
};

// Owns a call. Ends it (by cancelling) when it is destroyed; that does not wait for the agent.
template <typename Response>
class Watch {
 public:
  enum class Event { kResponse, kEnded, kSilent, kInterrupted };

  // `start(&context, &queue)` begins the call with the stub's PrepareAsync… method.
  template <typename Start>
  explicit Watch(Start start) : reader_(start(&context_, &queue_)) {
    reader_->StartCall(this);
    pending_ = true;
  }
  ~Watch() {
    context_.TryCancel();
    if (pending_) Take(absl::InfiniteFuture());
    if (!finished_) Finish();
    queue_.Shutdown();
    Take(absl::InfiniteFuture());
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // Waits at most `patience` for the next response. kEnded: the stream is over, Finish() says why.
  // kSilent: nothing came; call Next again to go on waiting. kInterrupted: an InterruptGuard saw
  // Ctrl-C.
  Event Next(Response* response, absl::Duration patience) {
    constexpr absl::Duration kSlice = absl::Milliseconds(50);
    const absl::Time end = absl::Now() + patience;
    while (!InterruptGuard::Pressed()) {
      if (!pending_ && ended_) return Event::kEnded;
      if (!pending_) {
        reader_->Read(&next_, this);
        pending_ = reading_ = true;
      }
      if (Take(std::min(end, absl::Now() + kSlice))) {
        if (ended_ || !reading_) continue;
        reading_ = false;
        *response = std::move(next_);
        return Event::kResponse;
      }
      if (absl::Now() >= end) return Event::kSilent;
    }
    return Event::kInterrupted;
  }

  // Why the stream ended. Cancels it when it has not ended.
  grpc::Status Finish() {
    if (finished_) return status_;
    if (!ended_) context_.TryCancel();
    if (pending_) Take(absl::InfiniteFuture());
    reader_->Finish(&status_, this);
    pending_ = finished_ = true;
    Take(absl::InfiniteFuture());
    return status_;
  }

 private:
  // Takes the pending step's end; false when it has not ended by `deadline` or the queue is shut
  // down.
  bool Take(absl::Time deadline) {
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(deadline)) !=
        grpc::CompletionQueue::GOT_EVENT) {
      return false;
    }
    pending_ = false;
    if (!ok) ended_ = true;
    return true;
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::ClientAsyncReader<Response>> reader_;
  Response next_;
  grpc::Status status_;
  bool pending_ = false, reading_ = false, ended_ = false, finished_ = false;
};

}  // namespace metal::ctl
