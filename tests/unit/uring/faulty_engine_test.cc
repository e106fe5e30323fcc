// The fault loop of any code that uses an engine: copies a file and expects either the copy or a
// reported error.
#include "tests/harness/faulty_engine.h"

#include <cstring>

#include "agent/uring/buffer_pool.h"
#include "gtest/gtest.h"
#include "tests/unit/uring/temp_file.h"

namespace metal::testing {
namespace {

using uring::IoOp;
using uring::IoRequest;

constexpr size_t kSize = (256 << 10) + 100;
constexpr uint32_t kBlock = 32 << 10;

// Copies with two requests in flight; completes short transfers. Error: the first errno met.
int Copy(uring::IoEngine& engine, int from, int to, size_t size) {
  struct Block {
    IoRequest request;
    size_t begin = 0, length = 0, done = 0;
  };
  uring::AlignedBuffer memory(2 * kBlock);
  std::vector<Block> blocks(2);
  std::vector<IoRequest*> finished;
  size_t next = 0;
  int error = 0;
  const auto start = [&](Block& block) {
    block.request.context = &block;
    block.request.fd = block.request.op == IoOp::kRead ? from : to;
    block.request.buffer = memory.data() + size_t(&block - blocks.data()) * kBlock + block.done;
    block.request.length = uint32_t(block.length - block.done);
    block.request.offset = block.begin + block.done;
    engine.Submit(&block.request);
  };
  const auto start_next = [&](Block& block) {
    if (next >= size || error != 0) return;
    block = {{}, next, std::min<size_t>(kBlock, size - next), 0};
    next += block.length;
    start(block);
  };
  for (Block& block : blocks) start_next(block);
  while (engine.in_flight() > 0) {
    if (!engine.Reap(finished, absl::Seconds(60)).ok()) return EIO;
    for (IoRequest* request : std::exchange(finished, {})) {
      auto& block = *static_cast<Block*>(request->context);
      if (request->result <= 0) error = request->result < 0 ? -request->result : ENODATA;
      if (error != 0) continue;
      block.done += size_t(request->result);
      if (block.done < block.length) {
        start(block);
      } else if (request->op == IoOp::kRead) {
        block.request.op = IoOp::kWrite;
        block.done = 0;
        start(block);
      } else {
        start_next(block);
      }
    }
  }
  return error;
}

class FaultLoopTest : public ::testing::TestWithParam<uring::EngineKind> {
 protected:
  // Runs the copy with the Nth request failing, N = 1, 2, … until nothing fails; `check` judges
  // each run.
  template <typename Check>
  void Loop(Fault fault, Check check) {
    for (fault.nth = 1;; ++fault.nth) {
      auto choice = uring::MakeEngine(GetParam(), 4);
      if (!choice.ok()) GTEST_SKIP() << choice.status();
      FaultyEngine engine(std::move(choice->engine), fault);
      uring::TempFile from(kSize);
      uring::TempFile to(0);
      const int error = Copy(engine, from.fd(), to.fd(), kSize);
      const bool same = to.Content() == from.bytes();
      if (engine.fired() == 0) {
        EXPECT_EQ(error, 0);
        EXPECT_TRUE(same);
        EXPECT_GT(fault.nth, 8u);
        return;
      }
      check(error, same);
    }
  }
};

TEST_P(FaultLoopTest, ErrorsComeBackAsTheyWere) {
  for (const int error : {EIO, ENOSPC, EROFS, ENODEV}) {
    Fault fault;
    fault.error = error;
    Loop(fault, [error](int result, bool) { EXPECT_EQ(result, error); });
  }
}

TEST_P(FaultLoopTest, ShortTransfersAreCompletedByTheCaller) {
  Fault fault;
  fault.kind = FaultKind::kShort;
  Loop(fault, [](int result, bool same) {
    EXPECT_EQ(result, 0);
    EXPECT_TRUE(same);
  });
}

TEST_P(FaultLoopTest, TornWriteLeavesHalfAndAnError) {
  Fault fault;
  fault.kind = FaultKind::kTornWrite;
  fault.only = IoOp::kWrite;
  Loop(fault, [](int result, bool same) {
    EXPECT_EQ(result, EIO);
    EXPECT_FALSE(same);
  });
}

TEST_P(FaultLoopTest, LyingWriteLooksLikeSuccess) {
  Fault fault;
  fault.kind = FaultKind::kLyingWrite;
  fault.only = IoOp::kWrite;
  Loop(fault, [](int result, bool same) {
    EXPECT_EQ(result, 0);
    EXPECT_FALSE(same);
  });
}

TEST_P(FaultLoopTest, InterruptedRequestsOnlyComeLate) {
  Fault fault;
  fault.kind = FaultKind::kInterrupted;
  fault.count = 3;
  Loop(fault, [](int result, bool same) {
    EXPECT_EQ(result, 0);
    EXPECT_TRUE(same);
  });
}

INSTANTIATE_TEST_SUITE_P(All, FaultLoopTest,
                         ::testing::Values(uring::EngineKind::kIoUring, uring::EngineKind::kThreads,
                                           uring::EngineKind::kPread),
                         uring::EngineTestName);

}  // namespace
}  // namespace metal::testing
