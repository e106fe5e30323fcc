#include "agent/disk/sources/kernel_sources.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "agent/base/check.h"
#include "agent/base/file.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/disk/sources/disk_names.h"
#include "agent/disk/sources/disk_sampler.h"
#include "agent/disk/sources/filesystem.h"
#include "agent/disk/sources/kernel_log.h"
#include "agent/disk/sources/uevent.h"

namespace metal::disk {
namespace {

constexpr absl::Duration kHelperPatience = absl::Seconds(1);

// Classes after which the disk's state in sysfs is worth a look at once.
bool AsksForLook(FaultClass fault_class) {
  return fault_class == FaultClass::kGone || fault_class == FaultClass::kControllerReset ||
         fault_class == FaultClass::kReadOnly || fault_class == FaultClass::kFilesystemShutdown;
}

}  // namespace

class KernelSources::Impl {
 public:
  Impl(KernelSourcesOptions options, EvidenceSink sink, observe::EventLog& events,
       base::Clock& clock)
      : options_(std::move(options)),
        clock_(clock),
        outlet_(std::make_shared<Outlet>(std::move(sink), events, std::move(options_.lines))),
        wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    METAL_CHECK(wake_.valid());
    OpenLog();
    if (auto socket = UeventSocket::Open(); socket.ok()) {
      uevents_.emplace(*std::move(socket));
    } else {
      unsupported_["uevent"] = std::string(socket.status().message());
    }
    thread_ = base::Thread("kernel-events", [this] { Listen(); });
  }

  ~Impl() {
    {
      base::MutexLock lock(mutex_);
      stop_ = true;
    }
    Wake();
    outlet_->Close();
    thread_.Join();  // it waits for nothing but the kernel's messages
    base::MutexLock lock(mutex_);
    for (auto& [name, sampled] : samplers_) sampled.sampler->Stop();
    samplers_.clear();
  }

  void Watch(const std::vector<StorageStack>& stacks) {
    auto names = std::make_shared<DiskNames>();
    std::map<std::string, DiskInfo> disks;
    std::map<std::string, std::vector<FilesystemId>> filesystems;  // by disk
    for (const StorageStack& stack : WithLastDisks(stacks)) {
      names->AddStack(options_.roots, stack);
      for (const DiskInfo& disk : stack.disks) disks[disk.name] = disk;
      const auto id = FilesystemOf(stack);
      if (!id || stack.disks.empty()) continue;
      std::vector<FilesystemId>& known = filesystems[stack.disks.front().name];
      // One that is mounted in several places is one.
      const bool is_known = std::ranges::any_of(known, [&](const FilesystemId& each) {
        return each.major == id->major && each.minor == id->minor;
      });
      if (!is_known) known.push_back(*id);
    }
    WatchDisks(std::move(names), std::move(disks));
    WatchFilesystems(filesystems);
  }
  std::optional<BlockActivity> ActivityOf(const std::string& disk) {
    base::MutexLock lock(mutex_);
    const auto found = samplers_.find(disk);
    if (found == samplers_.end()) return std::nullopt;
    return found->second.sampler->activity();
  }

  std::map<std::string, std::string> unsupported() {
    base::MutexLock lock(mutex_);
    return unsupported_;
  }

 private:
  struct Sampled {
    std::string serial;
    std::shared_ptr<DiskSampler> sampler;
  };

  struct Filesystem {
    FilesystemId id;
    std::shared_ptr<const base::UniqueFd> errors;  // null: it tells none
    bool asked = false, limited = false;           // the helper has answered for good
  };

  // Where sysfs does not show a mount's disks any more, the stack as it was when it did.
  std::vector<StorageStack> WithLastDisks(std::vector<StorageStack> stacks) {
    std::map<std::string, StorageStack> last;
    for (StorageStack& stack : stacks) {
      const auto before = last_stacks_.find(stack.path);
      const bool same_mount = before != last_stacks_.end() &&
                              before->second.mount.major == stack.mount.major &&
                              before->second.mount.minor == stack.mount.minor &&
                              before->second.mount.source == stack.mount.source;
      if (stack.disks.empty() && same_mount) stack = before->second;
      last[stack.path] = stack;
    }
    last_stacks_ = std::move(last);
    return stacks;
  }

  void OpenLog() {
    if (!options_.kernel_log.valid()) {
      absl::StatusOr<base::UniqueFd> log = absl::UnimplementedError("no privileged helper");
      if (options_.helper != nullptr) log = options_.helper->TakeKernelLog();
      Note("kernel_log", log.status());
      if (!log.ok()) return;
      options_.kernel_log = *std::move(log);
    }
    log_.emplace(std::move(options_.kernel_log));
    if (options_.trust_all_facilities) log_->TrustAllFacilities();
  }

  void WatchDisks(std::shared_ptr<const DiskNames> names, std::map<std::string, DiskInfo> disks) {
    std::map<std::string, Sampled> ended;  // their threads are waited for without the lock
    base::MutexLock lock(mutex_);
    names_ = std::move(names);
    for (auto it = samplers_.begin(); it != samplers_.end();) {
      const auto disk = disks.find(it->first);
      const bool same = disk != disks.end() && disk->second.serial == it->second.serial;
      if (same) disks.erase(disk);
      const auto next = std::next(it);
      if (!same) ended.insert(samplers_.extract(it));
      it = next;
    }
    for (auto& [name, disk] : disks) {
      DiskSamplerOptions options;
      options.roots = options_.roots;
      options.disk = disk;
      options.sample_interval = options_.sample_interval;
      options.look_interval = options_.look_interval;
      options.stalled_after = options_.stalled_after;
      samplers_[name] = {
          .serial = disk.serial,
          .sampler = std::make_shared<DiskSampler>(std::move(options), outlet_, clock_)};
    }
  }

  void WatchFilesystems(const std::map<std::string, std::vector<FilesystemId>>& by_disk) {
    std::vector<Filesystem> wanted;
    const std::vector<Filesystem> before = filesystems();
    for (const auto& [disk, ids] : by_disk) {
      for (const FilesystemId& id : ids) {
        const auto known = std::find_if(before.begin(), before.end(),
                                        [&](const Filesystem& each) { return each.id == id; });
        wanted.push_back(known != before.end() ? *known : Filesystem{});
        wanted.back().id = id;
      }
    }
    for (Filesystem& filesystem : wanted) AskHelper(filesystem);
    {
      base::MutexLock lock(mutex_);
      filesystems_ = std::move(wanted);
      // Only now: they are not to see settings that the helper was about to change.
      for (const auto& [name, sampled] : samplers_) {
        const auto found = by_disk.find(name);
        sampled.sampler->SetFilesystems(found == by_disk.end() ? std::vector<FilesystemId>()
                                                               : found->second);
      }
    }
    Wake();
  }

  // What the helper cannot do now, because it or the disk is busy, is asked for again.
  void AskHelper(Filesystem& filesystem) {
    if (options_.helper == nullptr) return;
    const FilesystemId& id = filesystem.id;
    if (!filesystem.asked) {
      auto errors = options_.helper->WatchFilesystem(id.major, id.minor, kHelperPatience);
      filesystem.asked = errors.ok() || absl::IsUnimplemented(errors.status());
      Note("filesystem:" + id.name, errors.status());
      if (errors.ok()) {
        filesystem.errors = std::make_shared<const base::UniqueFd>(*std::move(errors));
      }
    }
    if (!filesystem.limited && id.type == "xfs" && options_.xfs_retries) {
      const absl::Status limited =
          options_.helper->SetXfsRetries(id.name, *options_.xfs_retries, kHelperPatience);
      filesystem.limited = limited.ok() || absl::IsUnimplemented(limited);
      Note("xfs_retries:" + id.name, limited);
    }
  }

  void Note(const std::string& source, const absl::Status& status) {
    base::MutexLock lock(mutex_);
    if (status.ok()) {
      unsupported_.erase(source);
    } else {
      unsupported_[source] = std::string(status.message());
    }
  }

  std::vector<Filesystem> filesystems() {
    base::MutexLock lock(mutex_);
    return filesystems_;
  }

  void Wake() {
    const uint64_t one = 1;
    METAL_CHECK(write(wake_.get(), &one, sizeof one) == sizeof one);
  }

  void ClearWake() {
    uint64_t count = 0;
    METAL_CHECK(read(wake_.get(), &count, sizeof count) == sizeof count);
  }

  std::shared_ptr<const DiskNames> names() {
    base::MutexLock lock(mutex_);
    return names_;
  }

  void Listen() {
    while (true) {
      {
        base::MutexLock lock(mutex_);
        if (stop_) return;
      }
      const std::vector<Filesystem> watched = filesystems();
      std::vector<pollfd> waits = {
          {.fd = wake_.get(), .events = POLLIN, .revents = 0},
          {.fd = log_ ? log_->fd() : -1, .events = POLLIN, .revents = 0},
          {.fd = uevents_ ? uevents_->fd() : -1, .events = POLLIN, .revents = 0}};
      for (const Filesystem& filesystem : watched) {
        waits.push_back({.fd = filesystem.errors ? filesystem.errors->get() : -1,
                         .events = POLLIN,
                         .revents = 0});
      }
      if (poll(waits.data(), waits.size(), UntilTick()) < 0) METAL_CHECK(errno == EINTR);
      Findings findings;
      if (waits[0].revents != 0) ClearWake();
      if (waits[1].revents != 0) ReadLog(findings);
      if (waits[2].revents != 0) ReadUevents(findings);
      for (size_t i = 0; i < watched.size(); ++i) {
        if (waits[3 + i].revents != 0) ReadFilesystem(watched[i], findings);
      }
      if (log_) log_->judge().Tick(Now(), findings);
      for (const Evidence& evidence : findings.evidence) {
        if (AsksForLook(evidence.fault_class)) Look(evidence.device, false);
      }
      outlet_->Give(std::move(findings));
    }
  }

  KernelLogJudge::Now Now() { return {.time = clock_.Now(), .monotonic = clock_.Monotonic()}; }

  // Milliseconds until a count of lines left out is due; -1: none.
  int UntilTick() {
    const auto tick = log_ ? log_->judge().NextTick() : std::nullopt;
    if (!tick) return -1;
    const absl::Duration left = std::max(*tick - clock_.Monotonic(), absl::ZeroDuration());
    return static_cast<int>(absl::ToInt64Milliseconds(left)) + 1;
  }

  void ReadLog(Findings& findings) {
    if (log_->Drain(*names(), clock_, findings)) return;
    log_.reset();
    base::MutexLock lock(mutex_);
    unsupported_["kernel_log"] = "/dev/kmsg could not be read any more";
  }

  void ReadFilesystem(const Filesystem& filesystem, Findings& findings) {
    std::array<std::byte, 4096> buffer;
    const ssize_t length = read(filesystem.errors->get(), buffer.data(), buffer.size());
    if (length <= 0) return;
    for (const FilesystemError& error :
         ParseFilesystemErrors(std::span(buffer).first(static_cast<size_t>(length)))) {
      findings.evidence.push_back(JudgeFilesystemError(error, filesystem.id, clock_.Now()));
    }
  }

  void ReadUevents(Findings& findings) {
    bool lost = false;
    const auto names = this->names();
    for (const Uevent& event : uevents_->Drain(lost)) {
      auto verdict = JudgeUevent(event, *names, clock_.Now());
      if (!verdict) continue;
      if (verdict->came) Look(verdict->disk, true);
      if (verdict->evidence) findings.evidence.push_back(*std::move(verdict->evidence));
    }
    if (lost) Look("", false);  // whatever they said, sysfs shows what is so now
  }

  // Of all disks when `disk` is empty.
  void Look(const std::string& disk, bool came) {
    base::MutexLock lock(mutex_);
    for (const auto& [name, sampled] : samplers_) {
      if (disk.empty() || name == disk) sampled.sampler->Look(came);
    }
  }

  KernelSourcesOptions options_;
  base::Clock& clock_;
  const std::shared_ptr<Outlet> outlet_;
  const base::UniqueFd wake_;
  std::map<std::string, StorageStack> last_stacks_;  // by path; of Watch's caller alone
  std::optional<KernelLog> log_;                     // these two: of the thread alone, once it runs
  std::optional<UeventSocket> uevents_;

  base::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, std::string> unsupported_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const DiskNames> names_ ABSL_GUARDED_BY(mutex_) =
      std::make_shared<const DiskNames>();
  std::vector<Filesystem> filesystems_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Sampled> samplers_ ABSL_GUARDED_BY(mutex_);
  base::Thread thread_;  // last: it uses everything above
};

KernelSources::KernelSources(KernelSourcesOptions options, EvidenceSink sink,
                             observe::EventLog& events, base::Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(sink), events, clock)) {}
KernelSources::~KernelSources() = default;
void KernelSources::Watch(const std::vector<StorageStack>& stacks) { impl_->Watch(stacks); }
std::optional<BlockActivity> KernelSources::ActivityOf(const std::string& disk) const {
  return impl_->ActivityOf(disk);
}
std::map<std::string, std::string> KernelSources::unsupported() const {
  return impl_->unsupported();
}

}  // namespace metal::disk
