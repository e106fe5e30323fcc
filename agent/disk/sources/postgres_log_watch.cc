#include "agent/disk/sources/postgres_log_watch.h"

#include <utility>

#include "agent/base/mutex.h"
#include "agent/disk/sources/log_tail.h"
#include "agent/disk/sources/postgres_log.h"

namespace metal::disk {

struct PostgresLogWatch::State {
  State(std::string path, std::shared_ptr<Outlet> to, base::Clock& with)
      : outlet(std::move(to)), clock(with), tail(std::move(path)) {}

  void Turn() {
    std::set<std::string> watched;
    {
      base::MutexLock lock(mutex);
      watched = roles;
    }
    Findings findings;
    const auto now = [this]() -> KernelLogJudge::Now {
      return {.time = clock.Now(), .monotonic = clock.Monotonic()};
    };
    tail.Poll([&](std::string_view line) { judge.OnLine(line, watched, now(), findings); });
    judge.Tick(now(), findings);
    outlet->Give(std::move(findings));
  }

  const std::shared_ptr<Outlet> outlet;
  base::Clock& clock;
  LogTail tail;  // these two: of the thread alone
  PostgresLogJudge judge;

  base::Mutex mutex;
  std::set<std::string> roles ABSL_GUARDED_BY(mutex);
};

PostgresLogWatch::PostgresLogWatch(std::string path, EvidenceSink sink, observe::EventLog& events,
                                   base::Clock& clock, absl::Duration interval)
    : outlet_(std::make_shared<Outlet>(std::move(sink), events)),
      state_(std::make_shared<State>(std::move(path), outlet_, clock)),
      thread_(
          "postgres-log", interval, [state = state_] { state->Turn(); }, clock) {}

PostgresLogWatch::~PostgresLogWatch() { outlet_->Close(); }

void PostgresLogWatch::SetRoles(std::set<std::string> roles) {
  base::MutexLock lock(state_->mutex);
  state_->roles = std::move(roles);
}

}  // namespace metal::disk
