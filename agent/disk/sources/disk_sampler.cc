#include "agent/disk/sources/disk_sampler.h"

#include <algorithm>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/mutex.h"
#include "agent/disk/sources/sysfs_watch.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

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

  void Turn();
  void Sample();
  void LookAt(bool came);
  void LookAtFilesystems(Findings& findings);
  std::optional<BlockActivity> Activity();

  const DiskSamplerOptions options;
  const std::shared_ptr<Outlet> outlet;
  base::Clock& clock;
  // Of the thread alone.
  BlockStatJudge stat_judge;
  SysfsJudge sysfs_judge;
  std::vector<FilesystemJudge> filesystem_judges;
  bool vanished = false;
  std::optional<base::MonotonicTime> last_look;

  base::Mutex mutex;
  bool look ABSL_GUARDED_BY(mutex) = true;
  bool came ABSL_GUARDED_BY(mutex) = false;
  std::vector<FilesystemId> filesystems ABSL_GUARDED_BY(mutex);
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
  if (evidence) outlet->Give({.evidence = {*std::move(evidence)}, .events = {}, .lines = {}});
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
  LookAtFilesystems(findings);
  outlet->Give(std::move(findings));
}

void DiskSampler::State::LookAtFilesystems(Findings& findings) {
  std::vector<FilesystemId> wanted;
  {
    base::MutexLock lock(mutex);
    wanted = filesystems;
  }
  std::erase_if(filesystem_judges, [&](FilesystemJudge& judge) {
    if (std::find(wanted.begin(), wanted.end(), judge.id()) != wanted.end()) return false;
    for (Evidence& each : judge.Withdraw(clock.Now())) findings.evidence.push_back(std::move(each));
    return true;
  });
  for (FilesystemId& id : wanted) {
    const bool known = std::any_of(filesystem_judges.begin(), filesystem_judges.end(),
                                   [&](const auto& judge) { return judge.id() == id; });
    if (!known) filesystem_judges.emplace_back(std::move(id));
  }
  if (filesystem_judges.empty()) return;
  const auto mountinfo = base::ReadFile(options.roots.proc + "/self/mountinfo");
  if (!mountinfo.ok()) return;
  for (FilesystemJudge& judge : filesystem_judges) {
    const FilesystemId& id = judge.id();
    const auto evidence = judge.Observe(FindMountState(*mountinfo, id.major, id.minor),
                                        ReadXfsRetries(options.roots, id.name), clock.Now());
    findings.evidence.insert(findings.evidence.end(), evidence.begin(), evidence.end());
  }
}

std::optional<BlockActivity> DiskSampler::State::Activity() {
  base::MutexLock lock(mutex);
  if (!activity || clock.Monotonic() - activity->time > 3 * options.sample_interval) {
    return std::nullopt;
  }
  return activity;
}

void DiskSampler::State::Turn() {
  Sample();
  const base::MonotonicTime now = clock.Monotonic();
  bool due = !last_look || now - *last_look >= options.look_interval;
  bool event_says_it_came = false;
  {
    base::MutexLock lock(mutex);
    due = std::exchange(look, false) || due;
    event_says_it_came = std::exchange(came, false);
  }
  if (!due) return;
  last_look = now;
  LookAt(event_says_it_came);
}

DiskSampler::DiskSampler(DiskSamplerOptions options, std::shared_ptr<Outlet> outlet,
                         base::Clock& clock)
    : state_(std::make_shared<State>(std::move(options), std::move(outlet), clock)),
      thread_(
          "disk-sysfs", state_->options.sample_interval, [state = state_] { state->Turn(); },
          clock) {}

std::optional<BlockActivity> DiskSampler::activity() const { return state_->Activity(); }

void DiskSampler::Look(bool came) {
  {
    base::MutexLock lock(state_->mutex);
    state_->look = true;
    state_->came = state_->came || came;
  }
  thread_.Wake();
}

void DiskSampler::SetFilesystems(std::vector<FilesystemId> filesystems) {
  base::MutexLock lock(state_->mutex);
  state_->filesystems = std::move(filesystems);
}

}  // namespace metal::disk
