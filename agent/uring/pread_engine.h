// PreadEngine: requests run in the caller's thread, one for each Reap. Always available; the last
// resort. Threading: see io_engine.h.
#pragma once

#include <deque>
#include <utility>

#include "agent/uring/io_engine.h"
#include "agent/uring/wake_signal.h"

namespace metal::uring {

class PreadEngine final : public IoEngine {
 public:
  static absl::StatusOr<std::unique_ptr<IoEngine>> Create(uint32_t depth);
  PreadEngine(uint32_t depth, base::UniqueFd wake) : depth_(depth), signal_(std::move(wake)) {}

  std::string_view name() const override { return "pread"; }
  uint32_t depth() const override { return depth_; }
  uint32_t in_flight() const override { return static_cast<uint32_t>(queue_.size()); }
  void Submit(IoRequest* request) override;
  // Runs the oldest request only, so that the caller uses its bytes while they are in the cache.
  absl::Status Reap(std::vector<IoRequest*>& done, absl::Duration timeout) override;
  void Wake() override { signal_.Set(); }

 private:
  const uint32_t depth_;
  WakeSignal signal_;
  std::deque<IoRequest*> queue_;
};

}  // namespace metal::uring
