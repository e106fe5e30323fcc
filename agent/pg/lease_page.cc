#include "agent/pg/lease_page.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "agent/base/file.h"
#include "agent/base/proc.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr char kMagic[16] = "metal-lease 1\n";
constexpr int64_t kDisarmed = 0;
constexpr int64_t kFired = -1;
constexpr absl::Duration kShortestLead = absl::Milliseconds(500);
constexpr absl::Duration kLongestLead = absl::Seconds(10);

int64_t ToWord(base::MonotonicTime time) { return absl::ToInt64Nanoseconds(time.since_start); }
base::MonotonicTime FromWord(int64_t word) { return {absl::Nanoseconds(word)}; }

}  // namespace

// What both processes see. Every field is written whole; kill_at decides alone whether the lease is
// armed, so a reader never needs two of them at once.
struct LeasePage::Layout {
  char magic[16];
  char boot_id[48];
  std::atomic<uint64_t> term;
  std::atomic<int64_t> ordered_stop, kill_at, deadline;
  std::atomic<int64_t> guard_pid;
  std::atomic<uint64_t> guard_start;  // in ticks since boot
};

LeaseTimes LeaseTimesOf(base::MonotonicTime renewed, absl::Duration ttl) {
  const absl::Duration lead = std::clamp(ttl * 3 / 10, kShortestLead, kLongestLead);
  LeaseTimes times;
  times.deadline = renewed + ttl;
  times.ordered_stop = times.deadline + -lead;
  times.kill = times.deadline + -lead / 4;
  return times;
}

absl::StatusOr<std::unique_ptr<LeasePage>> LeasePage::Open(const std::string& path) {
  static_assert(sizeof(Layout) <= kPageBytes);
  static_assert(std::atomic<int64_t>::is_always_lock_free);
  METAL_ASSIGN_OR_RETURN(std::string boot, base::ReadFile("/proc/sys/kernel/random/boot_id", 128));
  boot.resize(std::min(boot.size(), sizeof(Layout::boot_id) - 1));
  METAL_ASSIGN_OR_RETURN(base::UniqueFd fd, base::OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW));
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return base::ErrnoStatus(errno, "stat", path);
  if (info.st_size != 0 && info.st_size != static_cast<off_t>(kPageBytes)) {
    return base::Error(
        absl::StatusCode::kDataLoss,
        "{}: not a lease: {} bytes. HINT: move it away while PostgreSQL is no primary", path,
        info.st_size);
  }
  if (ftruncate(fd.get(), kPageBytes) != 0) return base::ErrnoStatus(errno, "extend", path);
  void* mapped = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return base::ErrnoStatus(errno, "map", path);
  auto* page = static_cast<Layout*>(mapped);
  std::unique_ptr<LeasePage> lease(new LeasePage(std::move(fd), page));
  // Best effort: without the right to lock memory a fault may have to read the page again.
  (void)mlock(mapped, kPageBytes);
  if (std::memcmp(page->magic, kMagic, sizeof kMagic) != 0 ||
      std::strncmp(page->boot_id, boot.c_str(), sizeof page->boot_id) != 0) {
    page->kill_at = kDisarmed;
    page->term = 0;
    page->ordered_stop = page->deadline = 0;
    page->guard_pid = 0;
    std::memcpy(page->magic, kMagic, sizeof kMagic);
    std::memset(page->boot_id, 0, sizeof page->boot_id);
    std::memcpy(page->boot_id, boot.data(), boot.size());
  }
  return lease;
}

LeasePage::LeasePage(base::UniqueFd fd, Layout* page) : fd_(std::move(fd)), page_(page) {}

LeasePage::~LeasePage() { munmap(page_, kPageBytes); }

bool LeasePage::Arm(uint64_t term, const LeaseTimes& times) {
  if (page_->term == term && page_->kill_at != kDisarmed) return Extend(term, times);
  // Another term's ends first: nobody fires at its time once the page has the new one's name.
  page_->kill_at = kDisarmed;
  page_->term = term;
  page_->ordered_stop = ToWord(times.ordered_stop);
  page_->deadline = ToWord(times.deadline);
  page_->kill_at = ToWord(times.kill);
  return true;
}

bool LeasePage::Extend(uint64_t term, const LeaseTimes& times) {
  if (page_->term != term) return false;
  int64_t before = page_->kill_at;
  do {
    if (before <= 0) return false;
  } while (!page_->kill_at.compare_exchange_weak(before, ToWord(times.kill)));
  // An agent that dies between leaves the older two: its successor stops the server earlier.
  page_->ordered_stop = ToWord(times.ordered_stop);
  page_->deadline = ToWord(times.deadline);
  return true;
}

void LeasePage::Disarm() {
  int64_t before = page_->kill_at;
  while (before > 0 && !page_->kill_at.compare_exchange_weak(before, kDisarmed)) {
  }
}

void LeasePage::DisarmAt(base::MonotonicTime kill) {
  int64_t expected = ToWord(kill);
  if (expected > 0) page_->kill_at.compare_exchange_strong(expected, kDisarmed);
}

bool LeasePage::armed() const { return page_->kill_at > 0; }
bool LeasePage::fired() const { return page_->kill_at == kFired; }
uint64_t LeasePage::term() const { return page_->term; }

LeaseTimes LeasePage::times() const {
  return {FromWord(page_->ordered_stop), FromWord(page_->kill_at), FromWord(page_->deadline)};
}

bool LeasePage::Guarded() const {
  const auto pid = static_cast<pid_t>(page_->guard_pid.load());
  if (pid <= 0) return false;
  const auto stat = base::ReadProcStat(pid);
  return stat.ok() && stat->start_ticks == page_->guard_start && stat->state != 'Z' &&
         stat->state != 'T' && stat->state != 't';
}

bool LeasePage::HoldAsGuard() {
  if (flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) return false;
  const auto self = base::ReadProcStat(getpid());
  page_->guard_start = self.ok() ? self->start_ticks : 0;
  page_->guard_pid = getpid();
  return true;
}

void LeasePage::ReleaseAsGuard() {
  page_->guard_pid = 0;
  (void)flock(fd_.get(), LOCK_UN);
}

bool LeasePage::Fire(base::MonotonicTime kill) {
  int64_t expected = ToWord(kill);
  return expected > 0 && page_->kill_at.compare_exchange_strong(expected, kFired);
}

base::MonotonicTime LeasePage::kill_at() const {
  return FromWord(std::max<int64_t>(page_->kill_at, 0));
}

}  // namespace metal::pg
