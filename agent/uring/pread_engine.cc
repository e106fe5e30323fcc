#include "agent/uring/pread_engine.h"

#include "agent/base/check.h"
#include "agent/base/status.h"
#include "agent/uring/sync_io.h"

namespace metal::uring {

absl::StatusOr<std::unique_ptr<IoEngine>> PreadEngine::Create(uint32_t depth) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd wake, WakeSignal::MakeFd());
  return std::make_unique<PreadEngine>(depth, std::move(wake));
}

void PreadEngine::Submit(IoRequest* request) {
  METAL_CHECK(in_flight() < depth_);
  queue_.push_back(request);
}

absl::Status PreadEngine::Reap(std::vector<IoRequest*>& done, absl::Duration timeout) {
  if (queue_.empty()) {
    signal_.WaitFor(timeout);
    return absl::OkStatus();
  }
  IoRequest* request = queue_.front();
  queue_.pop_front();
  request->result = PerformNow(*request);
  done.push_back(request);
  return absl::OkStatus();
}

}  // namespace metal::uring
