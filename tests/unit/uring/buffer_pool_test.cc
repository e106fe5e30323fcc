#include "agent/uring/buffer_pool.h"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "gtest/gtest.h"

namespace metal::uring {
namespace {

TEST(AlignedBufferTest, IsAlignedAndRoundedUp) {
  for (const size_t size : {size_t{1}, size_t{4096}, size_t{5000}, (size_t{2} << 20) + 1}) {
    AlignedBuffer buffer(size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kDirectIoAlignment, 0u);
    EXPECT_GE(buffer.size(), size);
    EXPECT_EQ(buffer.size() % kDirectIoAlignment, 0u);
    memset(buffer.data(), 1, buffer.size());
  }
}

TEST(AlignedBufferTest, MoveLeavesTheSourceEmpty) {
  AlignedBuffer first(4096);
  std::byte* data = first.data();
  AlignedBuffer second(std::move(first));
  EXPECT_EQ(second.data(), data);
  AlignedBuffer third;
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.size(), 4096u);
}

// Mappings that ask for huge pages.
int HugeMappings() {
  std::ifstream file("/proc/self/smaps");
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmFlags:") && line.find(" hg") != std::string::npos) ++count;
  }
  return count;
}

TEST(AlignedBufferTest, NothingOfALargeOneIsLeft) {
  const int before = HugeMappings();
  {
    AlignedBuffer small(4096);
    AlignedBuffer large((size_t{8} << 20) + 4096);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(large.data()) % (size_t{2} << 20), 0u);
    memset(large.data(), 1, large.size());
    EXPECT_EQ(HugeMappings(), before + 1);
    AlignedBuffer moved = std::move(large);
    small = std::move(moved);
    EXPECT_EQ(HugeMappings(), before + 1);
    memset(small.data(), 2, small.size());
  }
  EXPECT_EQ(HugeMappings(), before);
}

TEST(BufferPoolTest, GivesEachBufferOnceThenNone) {
  BufferPool pool(5000, 3);
  EXPECT_EQ(pool.buffer_size(), 8192u);
  std::set<std::byte*> buffers;
  for (int i = 0; i < 3; ++i) buffers.insert(pool.TryAcquire());
  EXPECT_EQ(buffers.size(), 3u);
  EXPECT_FALSE(buffers.contains(nullptr));
  EXPECT_EQ(pool.TryAcquire(), nullptr);
  EXPECT_EQ(pool.available(), 0u);
  pool.Release(*buffers.begin());
  EXPECT_EQ(pool.available(), 1u);
  EXPECT_EQ(pool.TryAcquire(), *buffers.begin());
}

TEST(BufferPoolTest, ReusesTheBufferReleasedLast) {
  BufferPool pool(4096, 2);
  std::byte* first = pool.TryAcquire();
  std::byte* second = pool.TryAcquire();
  pool.Release(first);
  pool.Release(second);
  EXPECT_EQ(pool.TryAcquire(), second);
}

TEST(BufferPoolTest, ForeignPointerAborts) {
  BufferPool pool(4096, 2);
  std::byte* buffer = pool.TryAcquire();
  EXPECT_DEATH(pool.Release(buffer + 1), "check failed");
  EXPECT_DEATH(pool.Release(buffer + 3 * 4096), "check failed");
}

TEST(BufferPoolTest, ReleasingTwiceAborts) {
  BufferPool pool(4096, 1);
  std::byte* buffer = pool.TryAcquire();
  pool.Release(buffer);
  EXPECT_DEATH(pool.Release(buffer), "check failed");
}

TEST(BufferPoolTest, ThreadsNeverShareABuffer) {
  BufferPool pool(4096, 4);
  std::vector<std::thread> threads;
  for (int id = 1; id <= 4; ++id) {
    threads.emplace_back([&pool, id] {
      for (int round = 0; round < 10'000; ++round) {
        std::byte* buffer = pool.TryAcquire();
        if (buffer == nullptr) continue;
        memset(buffer, id, 64);
        for (int i = 0; i < 64; ++i) ASSERT_EQ(int(buffer[i]), id);
        pool.Release(buffer);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(pool.available(), 4u);
}

}  // namespace
}  // namespace metal::uring
