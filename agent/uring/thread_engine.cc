#include "agent/uring/thread_engine.h"

#include <algorithm>
#include <system_error>

#include "agent/base/check.h"
#include "agent/base/status.h"
#include "agent/uring/sync_io.h"

namespace metal::uring {
namespace {

constexpr uint32_t kMaxThreads = 8;

}  // namespace

absl::StatusOr<std::unique_ptr<IoEngine>> ThreadEngine::Create(uint32_t depth) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd wake, WakeSignal::MakeFd());
  auto engine = std::make_unique<ThreadEngine>(depth, std::move(wake));
  METAL_RETURN_IF_ERROR(engine->StartThreads());
  return engine;
}

absl::Status ThreadEngine::StartThreads() {
  const uint32_t count = std::min(depth_, kMaxThreads);
  try {
    for (uint32_t i = 0; i < count; ++i) {
      threads_.emplace_back(fmt::format("metal-io-{}", i), [this] { Work(); });
    }
  } catch (const std::system_error& error) {
    return base::Error(absl::StatusCode::kResourceExhausted, "threads: start {} I/O threads: {}",
                       count, error.code().message());
  }
  return absl::OkStatus();
}

ThreadEngine::~ThreadEngine() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  work_arrived_.NotifyAll();
}

void ThreadEngine::Submit(IoRequest* request) {
  METAL_CHECK(in_flight_ < depth_);
  ++in_flight_;
  {
    base::MutexLock lock(mutex_);
    queue_.push_back(request);
  }
  work_arrived_.NotifyOne();
}

void ThreadEngine::Work() {
  for (;;) {
    IoRequest* request = nullptr;
    {
      base::MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) work_arrived_.Wait(mutex_);
      if (queue_.empty()) return;
      request = queue_.front();
      queue_.pop_front();
    }
    request->result = PerformNow(*request);
    {
      base::MutexLock lock(mutex_);
      finished_.push_back(request);
    }
    signal_.Set();
  }
}

absl::Status ThreadEngine::Reap(std::vector<IoRequest*>& done, absl::Duration timeout) {
  const Deadline deadline(timeout);
  for (;;) {
    const bool woken = woken_.exchange(false, std::memory_order_acq_rel);
    size_t got = 0;
    {
      base::MutexLock lock(mutex_);
      got = finished_.size();
      done.insert(done.end(), finished_.begin(), finished_.end());
      finished_.clear();
    }
    in_flight_ -= static_cast<uint32_t>(got);
    if (got > 0 || woken || deadline.Passed()) return absl::OkStatus();
    signal_.WaitFor(deadline.Remaining());
  }
}

void ThreadEngine::Wake() {
  woken_.store(true, std::memory_order_release);
  signal_.Set();
}

}  // namespace metal::uring
