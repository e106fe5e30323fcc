#include "agent/base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include <csignal>
#include <utility>

namespace metal::base {
namespace {

constexpr int kGivingWay = 5;  // nice: a weight of 335 beside 1024

}  // namespace

Thread::Thread(std::string name, std::function<void()> body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([name = name.substr(0, 15), body = std::move(body)] {
    pthread_setname_np(pthread_self(), name.c_str());
    body();
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Thread& Thread::operator=(Thread&& other) {
  Join();
  thread_ = std::move(other.thread_);
  return *this;
}

void Thread::Join() {
  if (thread_.joinable()) thread_.join();
}

void Thread::Detach() {
  if (thread_.joinable()) thread_.detach();
}

void GiveWay() {
  // Both are of the thread, and allowed to everybody: lower is always possible. Nothing depends on
  // them, so a refusal (seccomp) is none of ours.
  const sched_param none{};
  if (sched_getscheduler(0) == SCHED_OTHER) (void)sched_setscheduler(0, SCHED_BATCH, &none);
  if (getpriority(PRIO_PROCESS, 0) < kGivingWay) (void)setpriority(PRIO_PROCESS, 0, kGivingWay);
}

}  // namespace metal::base
