// FaultyEngine: an I/O engine that runs requests on a real one and makes chosen requests go wrong,
// with the effect on the file that the fault would have. For loops "the Nth request fails, N = 1,
// 2, … until nothing fails". Threading: as IoEngine.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "agent/uring/io_engine.h"

namespace metal::testing {

enum class FaultKind : uint8_t {
  kError,        // nothing is transferred, the result is −error
  kShort,        // only the first half is transferred, and the result says so
  kTornWrite,    // only the first half is written, the result is −error (reads: as kError)
  kLyingWrite,   // only the first half is written, the result claims all of it (reads: second half
                 // is zeroed)
  kInterrupted,  // EINTR at first: runs late, after requests submitted behind it
};

struct Fault {
  uint64_t nth = 0;  // which matching request, from 1; 0: none
  FaultKind kind = FaultKind::kError;
  int error = EIO;
  uint64_t count = 1;  // how many matching requests in a row; UINT64_MAX: all from the nth on
  std::optional<uring::IoOp> only;
};

class FaultyEngine final : public uring::IoEngine {
 public:
  FaultyEngine(std::unique_ptr<uring::IoEngine> inner, Fault fault)
      : inner_(std::move(inner)), fault_(fault) {
    slots_.reserve(inner_->depth());
  }

  // Requests that went wrong so far: 0 at the end means that the loop over N is over.
  uint64_t fired() const { return fired_; }
  // Requests that matched so far.
  uint64_t matched() const { return matched_; }

  std::string_view name() const override { return inner_->name(); }
  uint32_t depth() const override { return inner_->depth(); }
  uint32_t in_flight() const override { return in_flight_; }
  void Flush() override { inner_->Flush(); }
  void Wake() override { inner_->Wake(); }

  void Submit(uring::IoRequest* request) override {
    ++in_flight_;
    if (!IsChosen(*request)) return inner_->Submit(request);
    ++fired_;
    const bool write = request->op == uring::IoOp::kWrite;
    switch (fault_.kind) {
      case FaultKind::kError:
        return Finish(request, -fault_.error);
      case FaultKind::kInterrupted:
        delayed_.push_back(request);
        return;
      case FaultKind::kTornWrite:
        if (!write) return Finish(request, -fault_.error);
        break;
      case FaultKind::kShort:
      case FaultKind::kLyingWrite:
        break;
    }
    SubmitHalf(request);
  }

  absl::Status Reap(std::vector<uring::IoRequest*>& done, absl::Duration timeout) override {
    for (uring::IoRequest* request : std::exchange(delayed_, {})) inner_->Submit(request);
    if (!finished_.empty()) timeout = absl::ZeroDuration();
    std::vector<uring::IoRequest*> reaped;
    absl::Status status = inner_->Reap(reaped, timeout);
    for (uring::IoRequest* request : reaped) finished_.push_back(FullRequest(request));
    in_flight_ -= static_cast<uint32_t>(finished_.size());
    done.insert(done.end(), finished_.begin(), finished_.end());
    finished_.clear();
    return status;
  }

 private:
  // The half that stands in for a request on the real engine.
  struct Slot {
    uring::IoRequest half;
    uring::IoRequest* full = nullptr;
  };

  bool IsChosen(const uring::IoRequest& request) {
    if (fault_.only && *fault_.only != request.op) return false;
    ++matched_;
    return fault_.nth != 0 && matched_ >= fault_.nth && matched_ - fault_.nth < fault_.count;
  }

  void Finish(uring::IoRequest* request, int32_t result) {
    request->result = result;
    finished_.push_back(request);
  }

  void SubmitHalf(uring::IoRequest* request) {
    auto slot = std::make_unique<Slot>();
    slot->half = *request;
    // Whole sectors, so that O_DIRECT takes it; at least one byte less than asked.
    const uint32_t half = request->length / 2;
    slot->half.length = half >= 4096 ? half / 4096 * 4096 : half;
    slot->full = request;
    inner_->Submit(&slot->half);
    slots_.push_back(std::move(slot));
  }

  // The caller's request for one that the real engine finished, with the result that the fault
  // prescribes.
  uring::IoRequest* FullRequest(uring::IoRequest* request) {
    const auto slot = std::find_if(slots_.begin(), slots_.end(),
                                   [&](const auto& entry) { return &entry->half == request; });
    if (slot == slots_.end()) return request;
    uring::IoRequest* full = (*slot)->full;
    full->result = request->result;
    if (fault_.kind == FaultKind::kTornWrite) full->result = -fault_.error;
    if (fault_.kind == FaultKind::kLyingWrite && request->result >= 0) {
      if (full->op == uring::IoOp::kRead) {
        std::fill(full->buffer + request->result, full->buffer + full->length, std::byte{0});
      }
      full->result = static_cast<int32_t>(full->length);
    }
    slots_.erase(slot);
    return full;
  }

  std::vector<std::unique_ptr<Slot>> slots_;  // outlives the engine, which may still use them
  std::unique_ptr<uring::IoEngine> inner_;
  const Fault fault_;
  uint64_t matched_ = 0;
  uint64_t fired_ = 0;
  uint32_t in_flight_ = 0;
  std::vector<uring::IoRequest*> delayed_;
  std::vector<uring::IoRequest*> finished_;
};

}  // namespace metal::testing
