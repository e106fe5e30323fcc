#include "agent/pg/lease_guard.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "agent/base/fd.h"
#include "agent/base/log.h"
#include "agent/base/proc.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"

namespace metal::pg {
namespace {

// How soon a lease that became shorter is noticed, and the host's waking from suspend.
constexpr absl::Duration kLook = absl::Milliseconds(200);
constexpr absl::Duration kStartPatience = absl::Seconds(3);
constexpr absl::Duration kPoll = absl::Milliseconds(5);
constexpr absl::Duration kKillPatience = absl::Seconds(10);

// Sleeps by the clock that goes on while the host is suspended.
class BootTimer {
 public:
  BootTimer() : fd_(timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC)) {}
  bool valid() const { return fd_.valid(); }
  void WaitUntil(base::MonotonicTime time) const {
    itimerspec spec{};
    spec.it_value = absl::ToTimespec(time.since_start);
    pollfd entry{fd_.get(), POLLIN, 0};
    if (timerfd_settime(fd_.get(), TFD_TIMER_ABSTIME, &spec, nullptr) != 0) return;
    (void)poll(&entry, 1, -1);
  }

 private:
  base::UniqueFd fd_;
};

void EndServer(const PostmasterPlace& place, base::Clock& clock) {
  const base::MonotonicTime limit = clock.SinceBoot() + kKillPatience;
  while (!ListServerProcesses(place).empty() && clock.SinceBoot() < limit) {
    if (const absl::Status killed = KillServerProcesses(place); !killed.ok()) {
      base::LogWarning("event=lease_guard message=\"{}\"", std::string(killed.message()));
    }
    clock.Sleep(kPoll);
  }
}

// The name of a data directory may be a link; /proc knows only the place itself.
std::string RealPath(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) != nullptr ? buffer : path;
}

}  // namespace

int RunLeaseGuard(const std::string& page_path, PostmasterPlace place, base::Clock& clock) {
  // An orderly stop of the agent's unit, or a closed terminal, is no reason to stop watching.
  for (const int ignored : {SIGTERM, SIGINT, SIGHUP}) (void)signal(ignored, SIG_IGN);
  // Best effort: it may need a right that this process has not.
  (void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
  place.data_dir = RealPath(place.data_dir);
  const auto page = LeasePage::Open(page_path);
  const BootTimer timer;
  if (!page.ok() || !timer.valid()) return 1;
  LeasePage& lease = **page;
  while (lease.HoldAsGuard()) {
    while (lease.armed()) {
      const base::MonotonicTime now = clock.SinceBoot();
      const base::MonotonicTime kill = lease.kill_at();
      if (now < kill) {
        timer.WaitUntil(std::min(kill, now + kLook));
      } else if (lease.Fire(kill)) {
        base::LogWarning("event=lease_guard message=\"the lease of term {} ran out: ending {}\"",
                         lease.term(), place.data_dir);
        EndServer(place, clock);
        break;
      }
    }
    lease.ReleaseAsGuard();
    // Armed again by somebody who still saw this guard: it may not leave.
    if (!lease.armed()) break;
  }
  return 0;
}

absl::Status StartLeaseGuard(const LeasePage& page, const std::string& page_path,
                             const PostmasterPlace& place, const std::string& log_path,
                             base::Clock& clock) {
  if (page.Guarded()) return absl::OkStatus();
  base::DaemonOptions options;
  options.argv = {base::ProcessExe(getpid()).value_or("/proc/self/exe"), "--lease-guard", page_path,
                  place.data_dir, place.bin_dir};
  options.log_path = log_path;
  const auto started = base::StartDaemon(options);
  if (!started.ok()) return base::Annotate(started.status(), "start the lease guard");
  const base::MonotonicTime limit = clock.Monotonic() + kStartPatience;
  while (!page.Guarded()) {
    if (clock.Monotonic() >= limit) {
      return base::Error(absl::StatusCode::kDeadlineExceeded,
                         "the lease guard (process {}) does not watch {} after {}. HINT: see {}",
                         *started, page_path, absl::FormatDuration(kStartPatience), log_path);
    }
    clock.Sleep(kPoll);
  }
  return absl::OkStatus();
}

}  // namespace metal::pg
