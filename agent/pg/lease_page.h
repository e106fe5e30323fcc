// The lease of a primary as agent and lease guard share it: one page of a small file, mapped by
// both. It outlives the agent's process, not the host's boot: a file of another boot reads as no
// lease. Never written through to a disk on purpose; keep it on a tmpfs (/run) so that writing it
// waits for no disk. Times are those of Clock::SinceBoot, which no step of a clock and no restart
// of a process changes. Threading: thread-safe; one agent and one guard at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"

namespace metal::pg {

// When what happens to a lease that is not renewed. With ttl T from the last renewal:
//   ordered_stop = T − max(0.3 T, 500 ms), at most 10 s before T: the agent begins to stop the
//                  server, gently at first; from then on no renewal is taken;
//   kill         = a quarter of the rest before T: the guard ends every process of the server.
struct LeaseTimes {
  base::MonotonicTime ordered_stop, kill, deadline;
};
LeaseTimes LeaseTimesOf(base::MonotonicTime renewed, absl::Duration ttl);

class LeasePage {
 public:
  // Maps the file, which is made (mode 0600) when it is not there, and emptied when it is of
  // another boot. Errors of the file system; DATA_LOSS when it is not such a file.
  static absl::StatusOr<std::unique_ptr<LeasePage>> Open(const std::string& path);
  ~LeasePage();
  LeasePage(const LeasePage&) = delete;
  LeasePage& operator=(const LeasePage&) = delete;

  // ---- The agent's side ----
  // A new lease, whatever another term had; one of this term that runs is moved. False: the guard
  // has fired at this term's lease, which stays over.
  bool Arm(uint64_t term, const LeaseTimes& times);
  // Moves the lease of `term`. False: there is none, it was of another term, or the guard has
  // fired.
  bool Extend(uint64_t term, const LeaseTimes& times);
  // Nothing is enforced any more. What the guard has fired at stays known until another term's Arm.
  void Disarm();
  // The same, for the lease that is enforced at exactly `kill`: one that was given or renewed since
  // stays.
  void DisarmAt(base::MonotonicTime kill);

  bool armed() const;  // and not fired
  bool fired() const;
  uint64_t term() const;
  LeaseTimes times() const;  // of an armed page
  // A living guard watches this page.
  bool Guarded() const;

  // ---- The guard's side ----
  // False when another guard holds the page. Held until the process ends or Release.
  bool HoldAsGuard();
  void ReleaseAsGuard();
  // True: the kill is due at exactly `kill`, and from now on nobody can extend the lease.
  bool Fire(base::MonotonicTime kill);
  base::MonotonicTime kill_at() const;  // zero: not armed

 private:
  struct Layout;
  LeasePage(base::UniqueFd fd, Layout* page);

  base::UniqueFd fd_;
  Layout* const page_;
};

}  // namespace metal::pg
