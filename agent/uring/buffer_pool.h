// AlignedBuffer: page-aligned memory. BufferPool: a fixed number of equal aligned buffers; the
// bound on memory in flight.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "agent/base/mutex.h"

namespace metal::uring {

inline constexpr size_t kDirectIoAlignment = 4096;

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // REQUIRES: size > 0. Rounded up to the alignment; huge pages are advised from 2 MiB on. Aborts
  // when memory is out.
  explicit AlignedBuffer(size_t size);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> span() const { return {data_, size_}; }

 private:
  void Free();
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Threading: thread-safe. The pool outlives its leases' use.
class BufferPool {
 public:
  BufferPool(size_t buffer_size, size_t count);
  // nullptr when none is free (the caller's credit is used up).
  std::byte* TryAcquire();
  void Release(std::byte* buffer);
  size_t buffer_size() const { return buffer_size_; }
  size_t capacity() const { return capacity_; }
  size_t available();

 private:
  const size_t buffer_size_;
  const size_t capacity_;
  AlignedBuffer memory_;
  base::Mutex mutex_;
  std::vector<std::byte*> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::uring
