#include "agent/disk/sources/disk_sampler.h"

#include <utility>

#include "agent/base/file.h"
#include "agent/disk/sources/sysfs_watch.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr absl::Duration kStopPatience = absl::Milliseconds(300);
constexpr double kLoad = 1 << 20;  // bytes a second that keep a link from saving power
constexpr size_t kMaxAttribute = 4096;

}  // namespace

struct DiskSampler::State {
  State(DiskSamplerOptions given, std::shared_ptr<Outlet> to, base::Clock& with)
      : options(std::move(given)),
        outlet(std::move(to)),
        clock(with),
        stat_judge(options.disk.name, options.stalled_after, 5 * options.sample_interval),
        sysfs_judge(options.disk.name, options.disk.serial) {}

  void Sample();
  void LookAt(bool came);
  std::optional<BlockActivity> Activity();

  const DiskSamplerOptions options;
  const std::shared_ptr<Outlet> outlet;
  base::Clock& clock;
  BlockStatJudge stat_judge;  // these two: of the thread alone
  SysfsJudge sysfs_judge;
  bool vanished = false;

  base::Mutex mutex;
  base::CondVar changed;
  std::optional<base::MonotonicTime> stop ABSL_GUARDED_BY(mutex);  // since when it is to end
  bool stopped ABSL_GUARDED_BY(mutex) = false;
  bool look ABSL_GUARDED_BY(mutex) = true;
  bool came ABSL_GUARDED_BY(mutex) = false;
  std::optional<BlockActivity> activity ABSL_GUARDED_BY(mutex);
};

void DiskSampler::State::Sample() {
  const std::string directory = options.roots.sys + "/class/block/" + options.disk.name;
  const auto stat_text = base::ReadFile(directory + "/stat", kMaxAttribute);
  const auto inflight_text = base::ReadFile(directory + "/inflight", kMaxAttribute);
  const auto stat = stat_text.ok() ? ParseBlockStat(*stat_text) : std::nullopt;
  if (!stat) {
    base::MutexLock lock(mutex);
    if (!std::exchange(vanished, true)) look = true;  // is it gone? asked at once
    activity.reset();
    return;
  }
  vanished = false;
  const auto in_flight = inflight_text.ok() ? ParseInflight(*inflight_text) : std::nullopt;
  auto evidence = stat_judge.Observe(*stat, in_flight, clock.Monotonic(), clock.Now());
  {
    base::MutexLock lock(mutex);
    activity = stat_judge.activity();
  }
  if (evidence) outlet->Give({.evidence = {*std::move(evidence)}, .events = {}});
}

void DiskSampler::State::LookAt(bool event_says_it_came) {
  const DiskSysfs seen =
      ReadDiskSysfs(options.roots, options.disk.name, options.disk.nvme_controller);
  const std::optional<BlockActivity> now = Activity();
  Findings findings;
  findings.evidence =
      sysfs_judge.Observe(seen, now && now->bytes_per_second() > kLoad, clock.Now());
  if (event_says_it_came && seen.present && seen.size_bytes != 0 &&
      seen.serial == options.disk.serial) {
    Evidence back;
    back.fault_class = FaultClass::kGone;
    back.witness = Witness::kUevent;
    back.clears = true;
    back.device = options.disk.name;
    back.text = fmt::format("{} is back{}", options.disk.name,
                            seen.serial.empty() ? "" : " with serial number " + seen.serial);
    back.time = clock.Now();
    findings.evidence.push_back(std::move(back));
  }
  outlet->Give(std::move(findings));
}

std::optional<BlockActivity> DiskSampler::State::Activity() {
  base::MutexLock lock(mutex);
  if (!activity || clock.Monotonic() - activity->time > 3 * options.sample_interval) {
    return std::nullopt;
  }
  return activity;
}

DiskSampler::DiskSampler(DiskSamplerOptions options, std::shared_ptr<Outlet> outlet,
                         base::Clock& clock)
    : state_(std::make_shared<State>(std::move(options), std::move(outlet), clock)) {
  thread_ = base::Thread("disk-sysfs", [state = state_] {
    Run(*state);
    base::MutexLock lock(state->mutex);
    state->stopped = true;
    state->changed.NotifyAll();
  });
}

void DiskSampler::Stop() {
  base::MutexLock lock(state_->mutex);
  if (!state_->stop) state_->stop = state_->clock.Monotonic();
  state_->changed.NotifyAll();
}

DiskSampler::~DiskSampler() {
  Stop();
  bool stopped = false;
  {
    base::MutexLock lock(state_->mutex);
    const absl::Duration passed = state_->clock.Monotonic() - *state_->stop;
    stopped = state_->changed.WaitFor(
        state_->mutex, kStopPatience - passed,
        [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return state_->stopped; });
  }
  if (!stopped) thread_.Detach();
}

void DiskSampler::Run(State& state) {
  std::optional<base::MonotonicTime> last_look;
  while (true) {
    state.Sample();
    const base::MonotonicTime now = state.clock.Monotonic();
    bool look = !last_look || now - *last_look >= state.options.look_interval;
    bool came = false;
    {
      base::MutexLock lock(state.mutex);
      if (state.stop) return;
      look = std::exchange(state.look, false) || look;
      came = std::exchange(state.came, false);
    }
    if (look) {
      last_look = now;
      state.LookAt(came);
    }
    base::MutexLock lock(state.mutex);
    state.changed.WaitFor(
        state.mutex, state.options.sample_interval,
        [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return state.stop.has_value() || state.look; });
    if (state.stop) return;
  }
}

std::optional<BlockActivity> DiskSampler::activity() const { return state_->Activity(); }

void DiskSampler::Look(bool came) {
  base::MutexLock lock(state_->mutex);
  state_->look = true;
  state_->came = state_->came || came;
  state_->changed.NotifyAll();
}

}  // namespace metal::disk
