#include "agent/uring/buffer_pool.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <utility>

#include "agent/base/check.h"

namespace metal::uring {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

constexpr size_t RoundUp(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

// Mapped by itself and given back as a whole. From malloc, the advice would stay with what it hands
// out next: hundreds of MiB after some hours of backups, of which each small object kept 2 MiB.
std::byte* MapHuge(size_t size) {
  void* const mapped =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  METAL_CHECK(mapped != MAP_FAILED);
  auto* const begin = static_cast<std::byte*>(mapped);
  const size_t head =
      RoundUp(reinterpret_cast<uintptr_t>(begin), kHugePage) - reinterpret_cast<uintptr_t>(begin);
  if (head > 0) munmap(begin, head);
  munmap(begin + head + size, kHugePage - head);
  madvise(begin + head, size, MADV_HUGEPAGE);  // only advice: may fail
  return begin + head;
}

}  // namespace

AlignedBuffer::AlignedBuffer(size_t size) {
  METAL_CHECK(size > 0);
  size_ = RoundUp(size, kDirectIoAlignment);
  // Huge pages spare the kernel 511 of 512 page look-ups for each direct read.
  data_ = size_ >= kHugePage
              ? MapHuge(RoundUp(size_, kHugePage))
              : static_cast<std::byte*>(std::aligned_alloc(kDirectIoAlignment, size_));
  METAL_CHECK(data_ != nullptr);
}

AlignedBuffer::~AlignedBuffer() { Free(); }

void AlignedBuffer::Free() {
  if (size_ >= kHugePage) {
    munmap(data_, RoundUp(size_, kHugePage));
  } else {
    std::free(data_);
  }
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  if (this != &other) {
    Free();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

BufferPool::BufferPool(size_t buffer_size, size_t count)
    : buffer_size_(RoundUp(buffer_size, kDirectIoAlignment)),
      capacity_(count),
      memory_(buffer_size_ * count) {
  free_.reserve(count);
  for (size_t i = count; i > 0; --i) free_.push_back(memory_.data() + (i - 1) * buffer_size_);
}

// The buffer returned last is handed out first: it is the one still in the cache.
std::byte* BufferPool::TryAcquire() {
  base::MutexLock lock(mutex_);
  if (free_.empty()) return nullptr;
  std::byte* buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void BufferPool::Release(std::byte* buffer) {
  const auto offset = static_cast<size_t>(buffer - memory_.data());
  METAL_CHECK(buffer >= memory_.data() && offset < buffer_size_ * capacity_);
  METAL_CHECK(offset % buffer_size_ == 0);
  base::MutexLock lock(mutex_);
  METAL_CHECK(free_.size() < capacity_);
  free_.push_back(buffer);
}

size_t BufferPool::available() {
  base::MutexLock lock(mutex_);
  return free_.size();
}

}  // namespace metal::uring
