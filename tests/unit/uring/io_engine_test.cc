#include "agent/uring/io_engine.h"

#include <csignal>
#include <cstring>
#include <deque>
#include <thread>

#include "agent/uring/buffer_pool.h"
#include "agent/uring/io_uring_engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/uring/temp_file.h"

namespace metal::uring {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(60);  // longer than any test may take

// Every test runs on each engine; one that this machine does not allow skips with its reason.
class IoEngineTest : public ::testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override { Make(4); }
  void Make(uint32_t depth) {
    auto choice = MakeEngine(GetParam(), depth);
    if (!choice.ok()) GTEST_SKIP() << choice.status();
    engine_ = std::move(choice->engine);
  }
  IoRequest Request(IoOp op, int fd, std::byte* buffer, uint32_t length, uint64_t offset) {
    IoRequest request;
    request.op = op;
    request.fd = fd;
    request.buffer = buffer;
    request.length = length;
    request.offset = offset;
    return request;
  }
  // Submits one request and waits for it.
  int32_t Run(IoRequest request) {
    engine_->Submit(&request);
    std::vector<IoRequest*> done;
    while (done.empty()) {
      if (!engine_->Reap(done, kLong).ok()) abort();
    }
    EXPECT_EQ(done[0], &request);
    EXPECT_EQ(done.size(), 1u);
    return request.result;
  }

  std::unique_ptr<IoEngine> engine_;
};

// Reads a whole file with `depth` requests in flight; the answer is the file's bytes.
std::vector<std::byte> ReadWhole(IoEngine& engine, int fd, size_t size, uint32_t block) {
  const size_t blocks = (size + block - 1) / block;
  BufferPool pool(block, engine.depth());
  std::deque<IoRequest> requests(blocks);
  std::vector<std::byte> content(size);
  std::vector<IoRequest*> done;
  size_t next = 0;
  size_t finished = 0;
  while (finished < blocks) {
    while (next < blocks && engine.in_flight() < engine.depth()) {
      std::byte* buffer = pool.TryAcquire();
      if (buffer == nullptr) break;
      IoRequest& request = requests[next];
      request.fd = fd;
      request.buffer = buffer;
      request.length = block;
      request.offset = next * uint64_t{block};
      ++next;
      engine.Submit(&request);
    }
    if (!engine.Reap(done, kLong).ok()) abort();
    for (IoRequest* request : done) {
      EXPECT_GE(request->result, 0) << strerror(-request->result);
      memcpy(content.data() + request->offset, request->buffer, size_t(request->result));
      pool.Release(request->buffer);
      ++finished;
    }
    done.clear();
  }
  EXPECT_EQ(engine.in_flight(), 0u);
  return content;
}

TEST_P(IoEngineTest, ReadsSameBytesAsWritten) {
  for (const size_t size : {size_t{1}, size_t{4096}, size_t{100'000}, (size_t{3} << 20) + 777}) {
    TempFile file(size);
    EXPECT_EQ(ReadWhole(*engine_, file.fd(), size, 64 << 10), file.bytes()) << size;
  }
}

TEST_P(IoEngineTest, DirectReadOfUnalignedTailReturnsRealLength) {
  const size_t size = (1 << 20) + 8192 + 123;
  TempFile file(size);
  base::UniqueFd direct = file.OpenDirect();
  if (!direct.valid()) GTEST_SKIP() << "no O_DIRECT here: " << strerror(errno);
  EXPECT_EQ(ReadWhole(*engine_, direct.get(), size, 64 << 10), file.bytes());
}

TEST_P(IoEngineTest, DirectReadWithUnalignedBufferFailsCleanly) {
  TempFile file(8192);
  base::UniqueFd direct = file.OpenDirect();
  if (!direct.valid()) GTEST_SKIP() << "no O_DIRECT here: " << strerror(errno);
  AlignedBuffer buffer(16384);
  const int32_t result = Run(Request(IoOp::kRead, direct.get(), buffer.data() + 1, 4096, 0));
  // Kernels and file systems differ in what they align to; what is never right is other bytes.
  if (result > 0) {
    EXPECT_EQ(0, memcmp(buffer.data() + 1, file.bytes().data(), size_t(result)));
  } else {
    EXPECT_EQ(result, -EINVAL);
  }
}

TEST_P(IoEngineTest, WritesLandAtTheirOffsetsInAnyOrder) {
  TempFile file(0);
  const auto bytes = RandomBytes(1 << 20, 7);
  std::deque<IoRequest> requests;
  std::vector<IoRequest*> done;
  for (uint64_t offset = 0; offset < bytes.size(); offset += 32 << 10) {
    const uint64_t backwards = bytes.size() - offset - (32 << 10);
    requests.push_back(Request(IoOp::kWrite, file.fd(),
                               const_cast<std::byte*>(bytes.data()) + backwards, 32 << 10,
                               backwards));
    while (engine_->in_flight() == engine_->depth()) ASSERT_TRUE(engine_->Reap(done, kLong).ok());
    engine_->Submit(&requests.back());
  }
  while (engine_->in_flight() > 0) ASSERT_TRUE(engine_->Reap(done, kLong).ok());
  EXPECT_EQ(done.size(), requests.size());
  for (const IoRequest* request : done) EXPECT_EQ(request->result, 32 << 10);
  EXPECT_EQ(file.Content(), bytes);
}

TEST_P(IoEngineTest, ErrorsAreInTheResult) {
  AlignedBuffer buffer(4096);
  TempFile file(100);
  EXPECT_EQ(Run(Request(IoOp::kRead, 1 << 20, buffer.data(), 4096, 0)), -EBADF);
  base::UniqueFd read_only(open("/proc/self/exe", O_RDONLY));
  EXPECT_EQ(Run(Request(IoOp::kWrite, read_only.get(), buffer.data(), 4096, 0)), -EBADF);
  base::UniqueFd directory(open(".", O_RDONLY));
  EXPECT_EQ(Run(Request(IoOp::kRead, directory.get(), buffer.data(), 4096, 0)), -EISDIR);
  base::UniqueFd full(open("/dev/full", O_RDWR));
  EXPECT_EQ(Run(Request(IoOp::kWrite, full.get(), buffer.data(), 4096, 0)), -ENOSPC);
  // An address that nobody has mapped.
  auto* nowhere = reinterpret_cast<std::byte*>(uintptr_t{4096});
  EXPECT_EQ(Run(Request(IoOp::kRead, file.fd(), nowhere, 100, 0)), -EFAULT);
}

TEST_P(IoEngineTest, ReadPastTheEndIsShortThenEmpty) {
  AlignedBuffer buffer(8192);
  TempFile file(5000);
  EXPECT_EQ(Run(Request(IoOp::kRead, file.fd(), buffer.data(), 8192, 0)), 5000);
  EXPECT_EQ(Run(Request(IoOp::kRead, file.fd(), buffer.data(), 4096, 4096)), 904);
  EXPECT_EQ(Run(Request(IoOp::kRead, file.fd(), buffer.data(), 4096, 1 << 20)), 0);
}

TEST_P(IoEngineTest, WakeFromAnotherThreadEndsReap) {
  for (int round = 0; round < 100; ++round) {
    std::vector<IoRequest*> done;
    std::thread waker([&] { engine_->Wake(); });
    const absl::Time start = absl::Now();
    EXPECT_TRUE(engine_->Reap(done, kLong).ok());
    EXPECT_LT(absl::Now() - start, kLong / 2);
    EXPECT_TRUE(done.empty());
    waker.join();
  }
}

TEST_P(IoEngineTest, WakeBeforeReapIsNotLost) {
  std::vector<IoRequest*> done;
  engine_->Wake();
  engine_->Wake();
  const absl::Time start = absl::Now();
  EXPECT_TRUE(engine_->Reap(done, kLong).ok());
  EXPECT_LT(absl::Now() - start, kLong / 2);
}

TEST_P(IoEngineTest, WakeFromSignalHandlerEndsReap) {
  static IoEngine* target = nullptr;
  target = engine_.get();
  struct sigaction action = {};
  struct sigaction before = {};
  action.sa_handler = [](int) { target->Wake(); };
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  const pthread_t waiter = pthread_self();
  std::thread sender([waiter] { pthread_kill(waiter, SIGUSR1); });
  std::vector<IoRequest*> done;
  const absl::Time start = absl::Now();
  EXPECT_TRUE(engine_->Reap(done, kLong).ok());
  EXPECT_LT(absl::Now() - start, kLong / 2);
  sender.join();
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_P(IoEngineTest, SignalWithoutWakeDoesNotCutTheWaitOrFailRequests) {
  struct sigaction action = {};
  struct sigaction before = {};
  action.sa_handler = [](int) {};  // no SA_RESTART: system calls return EINTR
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  const pthread_t waiter = pthread_self();
  std::atomic<bool> stop{false};
  std::thread sender([&] {
    while (!stop) {
      pthread_kill(waiter, SIGUSR1);
      std::this_thread::yield();
    }
  });
  TempFile file(4 << 20);
  EXPECT_EQ(ReadWhole(*engine_, file.fd(), 4 << 20, 64 << 10), file.bytes());
  std::vector<IoRequest*> done;
  const absl::Time start = absl::Now();
  EXPECT_TRUE(engine_->Reap(done, absl::Milliseconds(50)).ok());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(49));
  stop = true;
  sender.join();
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_P(IoEngineTest, ReapTimesOutWhenNothingHappens) {
  std::vector<IoRequest*> done;
  for (const auto timeout : {absl::ZeroDuration(), absl::Milliseconds(20), -absl::Seconds(1)}) {
    const absl::Time start = absl::Now();
    EXPECT_TRUE(engine_->Reap(done, timeout).ok());
    EXPECT_GE(absl::Now() - start, timeout - absl::Milliseconds(1));
  }
  EXPECT_TRUE(done.empty());
}

TEST_P(IoEngineTest, ZeroTimeoutMakesProgress) {
  TempFile file(1 << 20);
  AlignedBuffer buffer(1 << 20);
  IoRequest request = Request(IoOp::kRead, file.fd(), buffer.data(), 1 << 20, 0);
  engine_->Submit(&request);
  std::vector<IoRequest*> done;
  while (done.empty()) ASSERT_TRUE(engine_->Reap(done, absl::ZeroDuration()).ok());
  EXPECT_EQ(request.result, 1 << 20);
}

TEST_P(IoEngineTest, InfiniteTimeoutWaitsForTheRequest) {
  TempFile file(4096);
  AlignedBuffer buffer(4096);
  IoRequest request = Request(IoOp::kRead, file.fd(), buffer.data(), 4096, 0);
  engine_->Submit(&request);
  engine_->Flush();
  std::vector<IoRequest*> done;
  while (done.empty()) ASSERT_TRUE(engine_->Reap(done, absl::InfiniteDuration()).ok());
  EXPECT_EQ(request.result, 4096);
}

TEST_P(IoEngineTest, MadeInOneThreadUsedInAnother) {
  TempFile file(100'000);
  std::thread user([&] {
    EXPECT_EQ(ReadWhole(*engine_, file.fd(), 100'000, 8192), file.bytes());
    engine_.reset();
  });
  user.join();
}

TEST_P(IoEngineTest, DestructorLeavesNoRequestRunning) {
  TempFile file(8 << 20);
  auto expected = RandomBytes(8 << 20, 99);
  AlignedBuffer buffer(8 << 20);
  for (int round = 0; round < 20; ++round) {
    Make(8);
    std::deque<IoRequest> requests;
    for (uint64_t i = 0; i < 8; ++i) {
      requests.push_back(
          Request(IoOp::kRead, file.fd(), buffer.data() + (i << 20), 1 << 20, i << 20));
      engine_->Submit(&requests.back());
    }
    engine_->Flush();
    engine_.reset();
    memcpy(buffer.data(), expected.data(), expected.size());
    EXPECT_EQ(memcmp(buffer.data(), expected.data(), expected.size()), 0);
  }
}

TEST_P(IoEngineTest, EveryDepthWorks) {
  TempFile file(1 << 20);
  for (const uint32_t depth : {1u, 2u, 7u, 8u, 63u, 64u, 300u, kMaxDepth}) {
    Make(depth);
    EXPECT_EQ(engine_->depth(), depth);
    EXPECT_EQ(ReadWhole(*engine_, file.fd(), 1 << 20, 4096), file.bytes()) << depth;
  }
}

TEST_P(IoEngineTest, SubmittingBeyondTheDepthAborts) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TempFile file(4096);
  EXPECT_DEATH(
      {
        auto choice = MakeEngine(GetParam(), 1);
        AlignedBuffer buffer(4096);
        IoRequest first = Request(IoOp::kRead, file.fd(), buffer.data(), 4096, 0);
        IoRequest second = first;
        choice->engine->Submit(&first);
        choice->engine->Submit(&second);
      },
      "in_flight");
}

INSTANTIATE_TEST_SUITE_P(All, IoEngineTest,
                         ::testing::Values(EngineKind::kIoUring, EngineKind::kThreads,
                                           EngineKind::kPread),
                         EngineTestName);

TEST(EngineChoiceTest, AutoAlwaysFindsAnEngineAndSaysWhy) {
  auto choice = MakeEngine(EngineKind::kAuto, 8);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_THAT(choice->reason, HasSubstr(std::string(choice->engine->name())));
}

TEST(EngineChoiceTest, DepthIsBounded) {
  for (const uint32_t depth : {0u, kMaxDepth + 1}) {
    const auto choice = MakeEngine(EngineKind::kAuto, depth);
    EXPECT_EQ(choice.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(choice.status().message()), HasSubstr("HINT"));
  }
}

TEST(EngineChoiceTest, NamesParse) {
  EXPECT_EQ(ParseEngineKind("auto").value(), EngineKind::kAuto);
  EXPECT_EQ(ParseEngineKind("io_uring").value(), EngineKind::kIoUring);
  EXPECT_EQ(ParseEngineKind("threads").value(), EngineKind::kThreads);
  EXPECT_EQ(ParseEngineKind("pread").value(), EngineKind::kPread);
  EXPECT_FALSE(ParseEngineKind("IO_URING").ok());
  EXPECT_FALSE(ParseEngineKind("").ok());
}

TEST(EngineChoiceTest, SetupErrorsNameTheirCause) {
  EXPECT_THAT(ExplainSetupError(EPERM, "2"), HasSubstr("kernel.io_uring_disabled is 2"));
  EXPECT_THAT(ExplainSetupError(EPERM, "1"), HasSubstr("io_uring_group"));
  EXPECT_THAT(ExplainSetupError(EPERM, "0"), HasSubstr("seccomp"));
  EXPECT_THAT(ExplainSetupError(EPERM, ""), HasSubstr("seccomp"));
  EXPECT_THAT(ExplainSetupError(ENOSYS, ""), HasSubstr("kernel"));
  EXPECT_THAT(ExplainSetupError(ENOMEM, "0"), HasSubstr("RLIMIT_MEMLOCK"));
  EXPECT_THAT(ExplainSetupError(EMFILE, "0"), HasSubstr("descriptor"));
}

}  // namespace
}  // namespace metal::uring
