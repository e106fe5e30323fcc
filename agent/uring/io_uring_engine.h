// IoUringEngine: one io_uring, SINGLE_ISSUER and DEFER_TASKRUN where the kernel has them (6.1),
// fewer flags down to 5.11. Source: io_uring_setup(2), io_uring_enter(2). Threading: see
// io_engine.h; the ring belongs to the first thread that uses it. Destroying the engine in another
// thread while requests are in flight is a bug and aborts.
#pragma once

#include <liburing.h>

#include <thread>

#include "agent/uring/io_engine.h"
#include "agent/uring/wake_signal.h"

namespace metal::uring {

class IoUringEngine final : public IoEngine {
 public:
  // Proves with a throw-away ring that the kernel runs requests. Errors read "io_uring: <errno>
  // (<likely cause>)".
  static absl::StatusOr<std::unique_ptr<IoEngine>> Create(uint32_t depth);
  // With these IORING_SETUP_ flags and no others, as on a kernel that knows no better ones.
  static absl::StatusOr<std::unique_ptr<IoEngine>> CreateWithFlags(uint32_t depth, unsigned flags);
  ~IoUringEngine() override;

  std::string_view name() const override { return "io_uring"; }
  uint32_t depth() const override { return depth_; }
  uint32_t in_flight() const override { return in_flight_; }
  void Submit(IoRequest* request) override;
  void Flush() override;
  absl::Status Reap(std::vector<IoRequest*>& done, absl::Duration timeout) override;
  void Wake() override { signal_.Set(); }

 private:
  IoUringEngine(uint32_t depth, base::UniqueFd wake) : depth_(depth), signal_(std::move(wake)) {}
  absl::Status BindToThisThread();
  void Queue(IoRequest* request);
  void ArmWake();
  bool Harvest(std::vector<IoRequest*>& done);
  absl::Status Enter(absl::Duration wait);

  const uint32_t depth_;
  uint32_t in_flight_ = 0;
  uint32_t refusals_ = 0;  // consecutive EAGAIN/EBUSY of io_uring_enter
  bool wake_armed_ = false;
  bool bound_ = false;
  std::thread::id owner_;
  WakeSignal signal_;
  io_uring ring_{};
  bool ring_made_ = false;
};

// The likely cause of a failed io_uring_setup(2), for people. `sysctl_disabled` is the content of
// /proc/sys/kernel/io_uring_disabled without newline, empty when there is none.
std::string ExplainSetupError(int error, std::string_view sysctl_disabled);

}  // namespace metal::uring
