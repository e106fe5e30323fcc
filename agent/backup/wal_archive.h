// The WAL archive: WAL segments, timeline histories and backup labels of a repository, by cluster
// and timeline. Layout and bytes: agent/docs/repository-format-wal.md. A file is
// <repository>/<system identifier>/wal/<TLI>/<name>.wal. Durability: once Push returned OK the file
// survives a power loss; before that it is either absent or complete. Threading: thread-safe; every
// call but Statistics blocks on the repository's disk, so call from threads that may hang.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/backup/wal_object.h"
#include "agent/backup/wal_segment.h"
#include "agent/backup/wal_writer.h"
#include "agent/base/clock.h"
#include "agent/base/mutex.h"
#include "agent/base/units.h"
#include "agent/observe/event_log.h"
#include "agent/observe/progress.h"
#include "agent/stream/codec.h"

namespace metal::backup {

struct WalArchiveOptions {
  std::string repository_path;
  // Where the repository's id is noted: see Repository::OpenKnown.
  std::string state_dir = {};
  stream::CodecKind codec = stream::CodecKind::kZstd;
  int level = 1;
};

struct WalPushResult {
  uint64_t system_identifier = 0;
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;     // size of the stored file
  bool already_present = false;  // the same bytes were stored before; they are durable now
};

// WAL from `from` up to and including the byte before `to`, on one timeline.
struct WalRange {
  uint64_t system_identifier = 0;
  base::TimelineId timeline = 0;
  base::Lsn from, to;
  uint64_t segment_size = 16 * base::kMiB;
  bool require_history = true;  // also the timeline's .history file when timeline > 1
};

// Names of all files that the range needs, in order. INVALID_ARGUMENT: an empty range, a bad
// segment size, more than 1 M segments.
absl::StatusOr<std::vector<std::string>> FilesOf(const WalRange& range);

// What reading an archived file said, in words that nobody takes for "it is not there": recovery
// that does so ends early. A status that has a reason already is left as it is; never NOT_FOUND.
absl::Status NotReadable(std::string_view name, const absl::Status& status);

// What the repository holds of one timeline.
struct WalTimeline {
  base::TimelineId timeline = 0;
  uint64_t segment_count = 0;
  std::string first_segment, last_segment;  // empty: none
  uint64_t stored_bytes = 0;                // of every file of this timeline
  bool has_history = false;
  std::vector<std::string> missing;  // the first gaps between first and last, at most 10
};

struct WalArchiveStatistics {
  uint64_t pushed = 0;           // files stored by this process
  uint64_t already_present = 0;  // pushes of what was there
  uint64_t failed = 0;
  uint64_t raw_bytes = 0, stored_bytes = 0;  // of the pushed files
  uint64_t fetched = 0;
  std::string last_pushed;  // file name
  absl::Time last_pushed_time = absl::InfinitePast();
  std::string last_error;   // of the newest failed push; cleared by the next good one
  std::string last_failed;  // its file name
  absl::Time last_failed_time = absl::InfinitePast();
};

// Receives a file's bytes in order, at most 1 MiB at a time; an error ends the transfer and is
// passed on.
using WalSink = std::function<absl::Status(std::span<const std::byte>)>;

class WalArchive {
 public:
  // Touches no disk. `clock` outlives this; `events` may be null and outlives this unless
  // DropEvents was called.
  WalArchive(WalArchiveOptions options, base::Clock& clock, observe::EventLog* events);
  ~WalArchive();
  WalArchive(const WalArchive&) = delete;
  WalArchive& operator=(const WalArchive&) = delete;

  // Creates the repository directory when missing and removes what a crash left behind. Called by
  // the first Push; call it earlier to learn early. Files that another process is writing at this
  // moment are left alone.
  absl::Status Prepare();

  // Stores the regular file `fd`, read from its beginning with buffered reads, under `name`.
  // `system_identifier` 0: taken from the segment (not possible for .history and .backup:
  // INVALID_ARGUMENT). INVALID_ARGUMENT: a name that PostgreSQL does not archive, or contents that
  // do not fit it. FAILED_PRECONDITION: WAL of another cluster; or other bytes are stored under
  // this name (reason WAL_CONFLICT, and an event wal.conflict): nothing is overwritten.
  // RESOURCE_EXHAUSTED (reason NO_SPACE): the repository is full. UNAVAILABLE: the repository
  // has gone (not mounted). FAILED_PRECONDITION (reason REPOSITORY): another one is in its place.
  absl::StatusOr<WalPushResult> Push(std::string_view name, int fd, uint64_t system_identifier);
  absl::StatusOr<WalPushResult> PushBytes(std::string_view name, std::span<const std::byte> bytes,
                                          uint64_t system_identifier);

  // Hands out the file's bytes, each piece verified. Use what was received only after OK. Returns
  // the byte count. NOT_FOUND: not archived. Reason REPOSITORY: DATA_LOSS for a damaged file and
  // for one that the disk does not give, other codes as errno says. INVALID_ARGUMENT: not a name of
  // WAL.
  absl::StatusOr<uint64_t> Fetch(uint64_t system_identifier, std::string_view name,
                                 const WalSink& sink);
  // The same into a string (a history, a label).
  absl::StatusOr<std::string> FetchBytes(uint64_t system_identifier, std::string_view name);
  // Reads and checks every byte; errors as Fetch.
  absl::Status Verify(uint64_t system_identifier, std::string_view name);

  // File names of the range that are not in the archive, in order; empty: complete. A file counts
  // as present when its header is whole and its size is right. INVALID_ARGUMENT: an empty range, a
  // bad segment size, more than 1 M segments.
  absl::StatusOr<std::vector<std::string>> MissingSegments(const WalRange& range);
  // Waits until nothing of the range is missing. A push in this process is seen at once, another
  // process's within 1 s. Sets done and total of progress's current phase. DEADLINE_EXCEEDED
  // (reason WAL_MISSING, metadata first_missing) after `patience` in which no segment of this
  // timeline up to the range's end was archived: a long backlog is no fault. Once a segment behind
  // the range is there, nothing makes the patience longer. CANCELLED when progress says so.
  absl::Status WaitForSegments(const WalRange& range, absl::Duration patience,
                               observe::Progress& progress);

  // Timelines of a cluster, ascending; empty when the cluster is not known.
  absl::StatusOr<std::vector<WalTimeline>> ListTimelines(uint64_t system_identifier);
  // System identifiers with a WAL directory, ascending.
  absl::StatusOr<std::vector<uint64_t>> ListClusters();

  // Memory only: safe on the status path.
  WalArchiveStatistics Statistics();
  // From now on no event is appended: for a shutdown that leaves a thread behind on a hung disk.
  void DropEvents();

  const std::string& repository_path() const { return options_.repository_path; }

 private:
  // Where one file lives, and whose it is.
  struct Place {
    WalFile file;
    uint64_t system_identifier = 0;
    std::string path, incoming_directory;
  };
  class CodecLease;

  Place PlaceOf(WalFile file, uint64_t system_identifier) const;
  absl::StatusOr<Place> PlaceOf(std::string_view name, uint64_t system_identifier) const;
  absl::StatusOr<WalPushResult> PushSource(std::string_view name, const WalSource& source,
                                           uint64_t system_identifier);
  absl::StatusOr<WalPushResult> Store(const Place& place, const WalSource& source,
                                      WalFrameCodec& codec);
  absl::StatusOr<WalPushResult> AcceptExisting(const Place& place, const WalSource& source,
                                               WalFrameCodec& codec);
  absl::StatusOr<WalPushResult> Repair(const Place& place, const WalSource& source,
                                       const absl::Status& damage, WalFrameCodec& codec);
  // As Push when the repository is not there (not mounted) or another: absence of a file means
  // nothing then.
  absl::Status CheckRepository() const;
  absl::StatusOr<bool> IsPresent(uint64_t system_identifier, const std::string& name) const;
  absl::StatusOr<WalTimeline> DescribeTimeline(uint64_t system_identifier,
                                               base::TimelineId timeline) const;
  absl::StatusOr<std::unique_ptr<WalFrameCodec>> TakeCodec();
  void ReturnCodec(std::unique_ptr<WalFrameCodec> codec);
  void RecordPush(std::string_view name, const absl::StatusOr<WalPushResult>& result);
  void Emit(observe::Event event);

  const WalArchiveOptions options_;
  base::Clock& clock_;
  base::Mutex prepare_mutex_;
  bool prepared_ ABSL_GUARDED_BY(prepare_mutex_) = false;

  base::Mutex mutex_;  // never held during I/O
  base::CondVar pushed_;
  observe::EventLog* events_ ABSL_GUARDED_BY(mutex_);
  WalArchiveStatistics statistics_ ABSL_GUARDED_BY(mutex_);
  uint64_t push_revision_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<WalFrameCodec>> idle_codecs_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::backup
