// One allowance of memory for all operations that move data at the same time, so that the agent's
// bound holds however many of them run. Each takes a share before it makes its buffers and gives it
// back with them. Threading: thread-safe.
#pragma once

#include <functional>
#include <utility>

#include "absl/status/statusor.h"
#include "agent/base/mutex.h"
#include "agent/base/units.h"
#include "agent/observe/progress.h"

namespace metal::backup {

class MemoryBudget;

// Bytes of a budget, given back when it is destroyed. The budget outlives it.
class MemoryShare {
 public:
  MemoryShare() = default;
  MemoryShare(MemoryShare&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, {})) {}
  MemoryShare& operator=(MemoryShare&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MemoryShare();
  base::ByteCount bytes() const { return bytes_; }

 private:
  friend class MemoryBudget;
  MemoryShare(MemoryBudget* budget, base::ByteCount bytes) : budget_(budget), bytes_(bytes) {}
  MemoryBudget* budget_ = nullptr;
  base::ByteCount bytes_;
};

class MemoryBudget {
 public:
  explicit MemoryBudget(base::ByteCount total) : total_(total), free_(total) {}

  // Between `least` and `wanted` bytes: not more than three quarters of what is free, so that a
  // second operation finds something, unless `least` is more. Waits, in a phase of its own, while
  // less than `least` is free. RESOURCE_EXHAUSTED when the whole budget is smaller than `least`;
  // CANCELLED.
  absl::StatusOr<MemoryShare> Take(base::ByteCount wanted, base::ByteCount least,
                                   observe::Progress& progress);
  // The same for what is no operation: `check` ends the wait with its error, and is asked every
  // 100 ms.
  absl::StatusOr<MemoryShare> Take(base::ByteCount wanted, base::ByteCount least,
                                   const std::function<absl::Status()>& check);

  base::ByteCount total() const { return total_; }
  base::ByteCount free() const;

 private:
  friend class MemoryShare;
  void GiveBack(base::ByteCount bytes);
  MemoryShare TakeLocked(base::ByteCount wanted, base::ByteCount least)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const base::ByteCount total_;
  mutable base::Mutex mutex_;
  base::CondVar returned_;
  base::ByteCount free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::backup
