// WalArchive's view of what is there: ranges, waiting for them, timelines.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <utility>

#include "agent/backup/wal_archive.h"
#include "agent/backup/wal_reader.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/store/repository.h"

namespace metal::backup {
namespace {

constexpr uint64_t kMaxSegments = 1 << 20;
constexpr size_t kMaxGaps = 10;
constexpr absl::Duration kPollInterval = absl::Milliseconds(250);
constexpr std::string_view kSuffix = ".wal";

absl::Status TimedOut(const WalRange& range, const std::vector<std::string>& missing,
                      absl::Duration patience) {
  return base::WithReason(
      base::Error(
          absl::StatusCode::kDeadlineExceeded,
          "wait for WAL {} to {} of timeline {}: {} of its files are not archived, the first is "
          "{}, "
          "and for {:.0f} s no WAL before their end was. HINT: look at archive_command in "
          "PostgreSQL's log and at "
          "metalctl backup archive",
          range.from.ToString(), range.to.ToString(), range.timeline, missing.size(),
          missing.front(), absl::ToDoubleSeconds(patience)),
      {"WAL_MISSING", {{"first_missing", missing.front()}}});
}

// Changes whenever a file enters or leaves the directory, whoever moved it there; 0: there is none.
int64_t ChangeOf(const std::string& directory) {
  struct stat status;
  if (stat(directory.c_str(), &status) != 0) return 0;
  return status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec;
}

// What is in a timeline's directory up to a segment, and whether a later one is.
struct Arrivals {
  size_t count = 0;
  bool later = false;
};

Arrivals ArrivalsIn(const std::string& directory, std::string_view last) {
  Arrivals found;
  const auto names = base::ListDirectory(directory);
  if (!names.ok()) return found;  // looking for the files themselves says what is wrong
  for (const std::string& name : *names) {
    if (!name.ends_with(kSuffix) || name.size() != last.size() + kSuffix.size()) continue;
    if (std::string_view(name).substr(0, last.size()) <= last) {
      ++found.count;
    } else {
      found.later = true;
    }
  }
  return found;
}

// Names that lie between neighbours of the sorted `segments` and are not there.
std::vector<std::string> Gaps(const std::vector<std::string>& segments, uint64_t segment_size) {
  std::vector<std::string> gaps;
  for (size_t i = 1; i < segments.size() && gaps.size() < kMaxGaps; ++i) {
    const auto previous = base::ParseWalFileName(segments[i - 1], segment_size);
    const auto next = base::ParseWalFileName(segments[i], segment_size);
    if (!previous || !next) continue;
    for (uint64_t at = previous->start.value + segment_size;
         at < next->start.value && gaps.size() < kMaxGaps; at += segment_size) {
      gaps.push_back(base::WalFileName(previous->timeline, base::Lsn{at}, segment_size));
    }
  }
  return gaps;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FilesOf(const WalRange& range) {
  if (!std::has_single_bit(range.segment_size) || range.segment_size < base::kMiB ||
      range.segment_size > base::kGiB) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "{} is not a WAL segment size. HINT: powers of two from 1 MiB to 1 GiB are",
                       range.segment_size);
  }
  if (range.timeline == 0 || range.system_identifier == 0 || range.to <= range.from) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "{} to {} on timeline {} of cluster {} is not a range of WAL",
                       range.from.ToString(), range.to.ToString(), range.timeline,
                       range.system_identifier);
  }
  const uint64_t first = range.from.value / range.segment_size;
  const uint64_t last = (range.to.value - 1) / range.segment_size;
  if (last - first >= kMaxSegments) {
    return base::Error(absl::StatusCode::kInvalidArgument, "{} to {} is more than {} WAL segments",
                       range.from.ToString(), range.to.ToString(), kMaxSegments);
  }
  std::vector<std::string> names;
  names.reserve(last - first + 2);
  if (range.require_history && range.timeline > 1)
    names.push_back(fmt::format("{:08X}.history", range.timeline));
  for (uint64_t segment = first; segment <= last; ++segment) {
    names.push_back(base::WalFileName(range.timeline, base::Lsn{segment * range.segment_size},
                                      range.segment_size));
  }
  return names;
}

absl::StatusOr<bool> WalArchive::IsPresent(uint64_t system_identifier,
                                           const std::string& name) const {
  METAL_ASSIGN_OR_RETURN(const Place place, PlaceOf(name, system_identifier));
  const auto reader = WalReader::Open(place.path, system_identifier, name);
  if (reader.ok()) return true;
  if (absl::IsNotFound(reader.status())) return false;
  // A damaged file is as good as a missing one to whoever needs it. One that the disk does not give
  // may be whole.
  const auto reason = base::GetReason(reader.status());
  if (absl::IsDataLoss(reader.status()) && reason && reason->reason == "REPOSITORY") return false;
  return NotReadable(name, reader.status());
}

absl::StatusOr<std::vector<std::string>> WalArchive::MissingSegments(const WalRange& range) {
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names, FilesOf(range));
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    METAL_ASSIGN_OR_RETURN(const bool present, IsPresent(range.system_identifier, name));
    if (!present) missing.push_back(name);
  }
  if (!missing.empty()) METAL_RETURN_IF_ERROR(CheckRepository());
  return missing;
}

absl::Status WalArchive::WaitForSegments(const WalRange& range, absl::Duration patience,
                                         observe::Progress& progress) {
  METAL_ASSIGN_OR_RETURN(std::vector<std::string> missing, FilesOf(range));
  const std::string directory =
      base::DirectoryOf(PlaceOf(*ParseWalFile(missing.back()), range.system_identifier).path);
  const std::string last =
      base::WalFileName(range.timeline, base::Lsn{range.to.value - 1}, range.segment_size);
  base::MonotonicTime moved = clock_.Monotonic();
  std::pair<uint64_t, int64_t> seen;
  Arrivals arrived;
  const uint64_t total = missing.size();
  progress.SetTotal(total * range.segment_size);
  while (true) {
    const base::MonotonicTime looked = clock_.Monotonic();
    std::pair<uint64_t, int64_t> now{0, ChangeOf(directory)};
    {
      base::MutexLock lock(mutex_);
      now.first = push_revision_;
    }
    // WAL before the range's end is a backlog that gets shorter. After a segment behind it the
    // missing ones may never come, whatever else does.
    if (now != seen) {
      const Arrivals present = ArrivalsIn(directory, last);
      if (present.count != arrived.count && !present.later) moved = looked;
      arrived = present;
    }
    seen = now;
    // Whatever was seen once stays: only the rest is looked for again.
    std::vector<std::string> still_missing;
    for (const std::string& name : missing) {
      METAL_RETURN_IF_ERROR(progress.CheckCancelled());
      METAL_ASSIGN_OR_RETURN(const bool present, IsPresent(range.system_identifier, name));
      if (!present) still_missing.push_back(name);
    }
    missing = std::move(still_missing);
    progress.SetDone((total - missing.size()) * range.segment_size);
    if (missing.empty()) return absl::OkStatus();
    METAL_RETURN_IF_ERROR(progress.CheckCancelled());
    if (looked - moved >= patience) return TimedOut(range, missing, patience);
    base::MutexLock lock(mutex_);
    pushed_.WaitFor(mutex_, kPollInterval,
                    [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return push_revision_ != now.first; });
  }
}

absl::StatusOr<WalTimeline> WalArchive::DescribeTimeline(uint64_t system_identifier,
                                                         base::TimelineId timeline) const {
  const std::string directory = base::JoinPath(
      options_.repository_path, fmt::format("{}/wal/{:08X}", system_identifier, timeline));
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names, base::ListDirectory(directory));
  WalTimeline result;
  result.timeline = timeline;
  std::vector<std::string> segments;
  for (const std::string& name : names) {
    if (!name.ends_with(kSuffix)) continue;
    const auto file = ParseWalFile(std::string_view(name).substr(0, name.size() - kSuffix.size()));
    if (!file || file->timeline != timeline) continue;
    struct stat status;
    const std::string path = base::JoinPath(directory, name);
    if (stat(path.c_str(), &status) != 0) {
      if (errno == ENOENT) continue;  // removed meanwhile
      return base::ErrnoStatus(errno, "stat", path);
    }
    result.stored_bytes += static_cast<uint64_t>(status.st_size);
    if (file->kind == WalFileKind::kHistory) result.has_history = true;
    if (file->kind == WalFileKind::kSegment) segments.push_back(file->name);
  }
  result.segment_count = segments.size();
  if (segments.empty()) return result;
  result.first_segment = segments.front();
  result.last_segment = segments.back();
  const auto first =
      WalReader::Open(base::JoinPath(directory, segments.front() + std::string(kSuffix)),
                      system_identifier, segments.front());
  if (first.ok()) result.missing = Gaps(segments, first->header().raw_bytes);
  return result;
}

absl::StatusOr<std::vector<WalTimeline>> WalArchive::ListTimelines(uint64_t system_identifier) {
  METAL_RETURN_IF_ERROR(CheckRepository());
  const std::string wal =
      base::JoinPath(options_.repository_path, fmt::format("{}/wal", system_identifier));
  std::vector<WalTimeline> timelines;
  METAL_ASSIGN_OR_RETURN(const bool present, base::Exists(wal));
  if (!present) return timelines;
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names, base::ListDirectory(wal));
  for (const std::string& name : names) {
    base::TimelineId timeline = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), timeline, 16);
    if (error != std::errc() || name.size() != 8 || end != name.data() + name.size() ||
        timeline == 0)
      continue;
    METAL_ASSIGN_OR_RETURN(WalTimeline described, DescribeTimeline(system_identifier, timeline));
    timelines.push_back(std::move(described));
  }
  return timelines;
}

absl::StatusOr<std::vector<uint64_t>> WalArchive::ListClusters() {
  METAL_RETURN_IF_ERROR(CheckRepository());
  METAL_ASSIGN_OR_RETURN(const store::Repository repository,
                         store::Repository::Open(options_.repository_path));
  METAL_ASSIGN_OR_RETURN(const std::vector<uint64_t> systems, repository.ListSystems());
  std::vector<uint64_t> clusters;
  for (const uint64_t system : systems) {
    METAL_ASSIGN_OR_RETURN(const bool present,
                           base::Exists(base::JoinPath(repository.SystemDirectory(system), "wal")));
    if (present) clusters.push_back(system);
  }
  return clusters;
}

}  // namespace metal::backup
