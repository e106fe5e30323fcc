// Hosts that do not have the newest io_uring, or none: containers, hardened kernels, older kernels.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cstddef>
#include <cstdio>

#include "agent/uring/io_engine.h"
#include "agent/uring/io_uring_engine.h"
#include "gtest/gtest.h"
#include "tests/unit/uring/temp_file.h"

namespace metal::uring {
namespace {

// From here on this process gets `error` from io_uring_setup(2), as under a container run time.
bool ForbidIoUring(uint16_t error) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {std::size(filter), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// Reads one file on the engine; true when the bytes are right.
bool ReadsRight(IoEngine& engine) {
  TempFile file(100'000);
  std::vector<std::byte> content(file.bytes().size());
  IoRequest request;
  request.fd = file.fd();
  request.buffer = content.data();
  request.length = static_cast<uint32_t>(content.size());
  engine.Submit(&request);
  std::vector<IoRequest*> done;
  while (done.empty()) {
    if (!engine.Reap(done, absl::Seconds(60)).ok()) return false;
  }
  return content == file.bytes();
}

// Runs in a child. Exits with 0 when auto falls back to threads and names the cause, 2 when it
// cannot be tried here.
void FallBack(uint16_t error, const char* cause) {
  if (!ForbidIoUring(error)) _exit(2);
  auto choice = MakeEngine(EngineKind::kAuto, 8);
  if (!choice.ok() || choice->engine->name() != "threads" || !ReadsRight(*choice->engine)) _exit(3);
  fprintf(stderr, "%s\n", choice->reason.c_str());
  if (choice->reason.find(cause) == std::string::npos) _exit(4);
  if (choice->reason.find("using threads") == std::string::npos) _exit(5);
  const auto named = MakeEngine(EngineKind::kIoUring, 8);
  if (named.ok() || named.status().message().find("HINT") == std::string::npos) _exit(6);
  _exit(0);
}

class EngineFallbackTest : public ::testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    if (prctl(PR_GET_SECCOMP) < 0) GTEST_SKIP() << "kernel without seccomp";
  }
};

TEST_F(EngineFallbackTest, SeccompEpermFallsBackToThreadsAndSaysWhy) {
  EXPECT_EXIT(FallBack(EPERM, "Operation not permitted"), ::testing::ExitedWithCode(0), "");
}

TEST_F(EngineFallbackTest, SeccompEnosysFallsBackToThreadsAndSaysWhy) {
  EXPECT_EXIT(FallBack(ENOSYS, "seccomp filter hides it"), ::testing::ExitedWithCode(0), "");
}

TEST_F(EngineFallbackTest, MemoryLimitOfOldKernelsIsNamed) {
  EXPECT_EXIT(FallBack(ENOMEM, "RLIMIT_MEMLOCK"), ::testing::ExitedWithCode(0), "");
}

TEST_F(EngineFallbackTest, ExhaustedDescriptorsAreNamed) {
  EXPECT_EXIT(FallBack(EMFILE, "no file descriptor is free"), ::testing::ExitedWithCode(0), "");
}

TEST(EngineFlagsTest, EveryFlagSetOfOlderKernelsWorks) {
  for (const unsigned flags : {unsigned{IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN},
                               unsigned{IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN},
                               unsigned{IORING_SETUP_COOP_TASKRUN}, 0u}) {
    auto engine = IoUringEngine::CreateWithFlags(4, flags);
    if (!engine.ok()) GTEST_SKIP() << engine.status();
    EXPECT_TRUE(ReadsRight(**engine)) << flags;
    (*engine)->Wake();
    std::vector<IoRequest*> done;
    const absl::Time start = absl::Now();
    EXPECT_TRUE((*engine)->Reap(done, absl::Seconds(60)).ok());
    EXPECT_LT(absl::Now() - start, absl::Seconds(30)) << flags;
    EXPECT_TRUE(ReadsRight(**engine)) << flags;
  }
}

}  // namespace
}  // namespace metal::uring
