#include "agent/backup/wal_prefetch.h"

#include <algorithm>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/units.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kDropInterval = absl::Seconds(10);

}  // namespace

base::UniqueFd WalPrefetcher::Take(uint64_t system_identifier, std::string_view name, dev_t device,
                                   absl::Duration timeout) {
  base::MutexLock lock(mutex_);
  const auto found = Find(system_identifier, name, device);
  if (found == segments_.end()) return base::UniqueFd();
  const std::shared_ptr<Segment> segment = *found;
  // What is being written is there sooner than it could be decoded once more.
  changed_.WaitFor(mutex_, timeout, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return segment->state != State::kWorking || stopping_;
  });
  base::UniqueFd file;
  if (segment->state == State::kReady) {
    file = std::move(segment->file);
    if (file.valid()) ++hits_;
  }
  Drop(segment);
  return file;
}

void WalPrefetcher::Schedule(uint64_t system_identifier, std::string_view name,
                             uint64_t segment_size, dev_t device,
                             std::vector<base::UniqueFd> spares) {
  const auto current = base::ParseWalFileName(name, segment_size);
  if (!current || segment_size > kMaxSegmentSize) return;
  base::MutexLock lock(mutex_);
  DropOld();
  std::erase_if(segments_, [&](const auto& segment) {
    return segment->system_identifier == system_identifier && segment->device == device &&
           segment->name.substr(0, 8) == name.substr(0, 8) && segment->name <= name;
  });
  base::Lsn next = current->start;
  for (size_t i = 0, count = spares.size(); i < count; ++i) {
    next.value += segment_size;
    const std::string next_name = base::WalFileName(current->timeline, next, segment_size);
    if (stopping_ || segments_.size() >= kMaxSegments) break;
    if (Find(system_identifier, next_name, device) != segments_.end()) continue;
    segments_.push_back(std::make_shared<Segment>(Segment{.system_identifier = system_identifier,
                                                          .name = next_name,
                                                          .device = device,
                                                          .file = std::move(spares.back()),
                                                          .since = clock_.Monotonic()}));
    spares.pop_back();
  }
  changed_.NotifyAll();
}

void WalPrefetcher::Run() {
  base::MutexLock lock(mutex_);
  while (!stopping_) {
    const auto waiting = std::find_if(segments_.begin(), segments_.end(), [](const auto& segment) {
      return segment->state == State::kWaiting;
    });
    if (waiting == segments_.end()) {
      if (segments_.empty())
        changed_.Wait(mutex_);
      else
        changed_.WaitFor(mutex_, kDropInterval);
      DropOld();
      continue;
    }
    const std::shared_ptr<Segment> segment = *waiting;
    segment->state = State::kWorking;
    mutex_.Unlock();
    const absl::Status decoded = Decode(*segment);
    mutex_.Lock();
    segment->state = State::kReady;
    segment->since = clock_.Monotonic();
    if (!decoded.ok()) {
      // Mostly the end of the archive. Whoever asks for it is told by the direct way.
      segment->file.Reset();
      Drop(segment);
    }
    changed_.NotifyAll();
  }
}

void WalPrefetcher::Stop() {
  base::MutexLock lock(mutex_);
  stopping_ = true;
  changed_.NotifyAll();
}

uint64_t WalPrefetcher::hits() {
  base::MutexLock lock(mutex_);
  return hits_;
}

WalPrefetcher::Segments::iterator WalPrefetcher::Find(uint64_t system_identifier,
                                                      std::string_view name, dev_t device) {
  return std::find_if(segments_.begin(), segments_.end(), [&](const auto& segment) {
    return segment->system_identifier == system_identifier && segment->name == name &&
           segment->device == device;
  });
}

// A segment at work is never too old: somebody may be waiting for it.
void WalPrefetcher::DropOld() {
  const base::MonotonicTime now = clock_.Monotonic();
  std::erase_if(segments_, [&](const auto& segment) {
    return segment->state != State::kWorking && now - segment->since >= kKeep;
  });
}

void WalPrefetcher::Drop(const std::shared_ptr<Segment>& segment) {
  std::erase(segments_, segment);
}

absl::Status WalPrefetcher::Decode(const Segment& segment) {
  METAL_RETURN_IF_ERROR(base::FaultPoint("wal.prefetch"));
  return archive_
      ->Fetch(segment.system_identifier, segment.name,
              [&](std::span<const std::byte> piece) {
                return base::WriteAll(segment.file.get(),
                                      {reinterpret_cast<const char*>(piece.data()), piece.size()},
                                      segment.name);
              })
      .status();
}

}  // namespace metal::backup
