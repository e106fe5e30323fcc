// A library for LD_PRELOAD that steps the wall clock of one host's processes, as NTP or an operator
// would: what they read moves by the nanoseconds that the file METAL_CLOCK_FILE (8 bytes, native
// order) holds at that moment. The machine's own clock is left alone, and a time namespace cannot
// move CLOCK_REALTIME.
//
// Absolute deadlines on CLOCK_REALTIME are moved back before the kernel sees them, else a wait
// until "in a second" would last as long as the step. A step during a wait does not end it. Clocks
// that count from boot do not move.
//
// Threading: as thread-safe as what these functions stand for; no locks, no allocation.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <ctime>

namespace {

constexpr int64_t kSecond = 1'000'000'000;

using Offset = std::atomic<int64_t>;

Offset* MapFile() {
  static Offset none{0};
  const char* path = getenv("METAL_CLOCK_FILE");
  const int fd = path == nullptr ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return &none;
  void* mapped = mmap(nullptr, sizeof(Offset), PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  return mapped == MAP_FAILED ? &none : static_cast<Offset*>(mapped);
}

int64_t Step() {
  static Offset* const mapped = MapFile();
  return mapped->load(std::memory_order_relaxed);
}

timespec Moved(const timespec& of, int64_t by) {
  int64_t nanoseconds = of.tv_nsec + by % kSecond;
  int64_t seconds = of.tv_sec + by / kSecond;
  if (nanoseconds < 0) nanoseconds += kSecond, --seconds;
  if (nanoseconds >= kSecond) nanoseconds -= kSecond, ++seconds;
  return {seconds, nanoseconds};
}

// The kernel refuses one before the epoch; it has passed either way.
timespec Deadline(const timespec& stepped) {
  const timespec moved = Moved(stepped, -Step());
  return moved.tv_sec < 0 ? timespec{} : moved;
}

bool IsWallClock(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) {
  static auto* const next = Next<int(clockid_t, timespec*)>("clock_gettime");
  const int result = next(clock, time);
  if (result == 0 && IsWallClock(clock)) *time = Moved(*time, Step());
  return result;
}

int gettimeofday(timeval* now, void* zone) {
  static auto* const next = Next<int(timeval*, void*)>("gettimeofday");
  const int result = next(now, zone);
  if (result == 0) {
    const timespec moved = Moved({now->tv_sec, now->tv_usec * 1000}, Step());
    *now = {moved.tv_sec, moved.tv_nsec / 1000};
  }
  return result;
}

time_t time(time_t* seconds) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (seconds != nullptr) *seconds = now.tv_sec;
  return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* deadline) {
  static auto* const next =
      Next<int(pthread_cond_t*, pthread_mutex_t*, const timespec*)>("pthread_cond_timedwait");
  const timespec moved = Deadline(*deadline);
  return next(condition, mutex, &moved);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* deadline) {
  static auto* const next =
      Next<int(pthread_cond_t*, pthread_mutex_t*, clockid_t, const timespec*)>(
          "pthread_cond_clockwait");
  const timespec moved = IsWallClock(clock) ? Deadline(*deadline) : *deadline;
  return next(condition, mutex, clock, &moved);
}

int sem_timedwait(sem_t* semaphore, const timespec* deadline) {
  static auto* const next = Next<int(sem_t*, const timespec*)>("sem_timedwait");
  const timespec moved = Deadline(*deadline);
  return next(semaphore, &moved);
}

// abseil waits with FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME.
long syscall(long number, ...) {  // NOLINT: the C library's own declaration
  static auto* const next = Next<long(long, ...)>("syscall");
  va_list list;
  va_start(list, number);
  long argument[6];
  for (long& each : argument) each = va_arg(list, long);
  va_end(list);
  timespec moved{};
  const auto operation = static_cast<int>(argument[1]);
  if (number == SYS_futex && (operation & FUTEX_CLOCK_REALTIME) != 0 && argument[3] != 0) {
    moved = Deadline(*reinterpret_cast<const timespec*>(argument[3]));
    argument[3] = reinterpret_cast<long>(&moved);
  }
  return next(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
}

}  // extern "C"
