// Looks at a data directory before anything is done to it, and locks it against a second agent.
// Threading: pure state; the functions block on the data disk.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/fd.h"
#include "agent/base/mutex.h"
#include "agent/base/units.h"
#include "agent/pg/install.h"

namespace metal::pg {

// While this file exists the directory is half made (initdb, restore) and must not be started.
// First line: what was being made ("initdb", "restore"); the other lines are its maker's notes.
inline constexpr const char* kIncompleteSentinel = "metal.incomplete";
// The same for a rewind, whose task is kRewindTask. A socket's node, for pg_rewind removes every
// file that its source does not have but passes over what is neither file, directory nor link. Like
// any socket nobody can open it by mistake.
inline constexpr const char* kRewindSentinel = "metal.rewind";
inline constexpr const char* kRewindTask = "rewind";

enum class DataDirectoryKind {
  kMissing,     // does not exist
  kEmpty,       // exists, no entry
  kCluster,     // PG_VERSION and global/pg_control are there
  kIncomplete,  // the sentinel is there
  kForeign,     // has entries and is no data directory
};

struct TablespaceLink {
  uint32_t oid = 0;
  std::string location;   // where the symbolic link points; for an in-place tablespace its own path
  bool in_place = false;  // a real directory below pg_tblspc
};

struct DataDirectory {
  std::string path;       // as given
  std::string real_path;  // links resolved; empty when missing
  DataDirectoryKind kind = DataDirectoryKind::kMissing;
  std::string incomplete_task;  // first line of the sentinel; kRewindTask with that sentinel
  int major = 0;                // PG_VERSION; 0: none
  uid_t owner = 0;
  mode_t mode = 0;  // permission bits
  std::vector<TablespaceLink> tablespaces;
  std::string wal_path;                 // real path of pg_wal
  base::ByteCount data_free, wal_free;  // free for unprivileged users
  bool standby_signal = false, recovery_signal = false, backup_label = false;
  // A rewind changed it and did not finish: a cluster's directory that must not be started.
  bool half_rewound() const {
    return kind == DataDirectoryKind::kIncomplete && incomplete_task == kRewindTask;
  }
};

// Describes what is there. Errors are only those of the file system; a strange directory is a
// description, not an error.
absl::StatusOr<DataDirectory> InspectDataDirectory(const std::string& path);

// OK when `postgres` of this version can be started on the directory by user `uid`.
// FAILED_PRECONDITION with a reason: DATA_DIRECTORY_MISSING, DATA_DIRECTORY_INCOMPLETE,
// DATA_DIRECTORY_FOREIGN, DATA_DIRECTORY_OWNER, DATA_DIRECTORY_MODE, VERSION_MISMATCH,
// TABLESPACE_MISSING; RESOURCE_EXHAUSTED (NO_SPACE) with less than 16 MiB free. Changes nothing.
absl::Status CheckStartable(const DataDirectory& directory, const PostgresVersion& version,
                            uid_t uid);

// OK when a new cluster may be made here: missing, empty, or our own leftovers (kIncomplete). The
// reasons above, and DATA_DIRECTORY_NOT_EMPTY. Changes nothing.
absl::Status CheckCreatable(const DataDirectory& directory, uid_t uid);

// Marks the directory as half made / complete. Durable when they return OK.
absl::Status WriteIncompleteSentinel(const std::string& data_dir, const std::string& task,
                                     const std::vector<std::string>& notes = {});
absl::Status RemoveIncompleteSentinel(const std::string& data_dir);
// The same for a rewind. Both are idempotent.
absl::Status WriteRewindSentinel(const std::string& data_dir);
absl::Status RemoveRewindSentinel(const std::string& data_dir);

// Holds flock(LOCK_EX) on <state_dir>/postgres.lock and on the inode of the data directory, so that
// neither two agents with one state directory nor two with one data directory change anything at
// the same time. The kernel drops both when the process dies.
// Threading: thread-safe. Copies share the locks, which last as long as any of them: a thread that
// hangs with the data disk keeps one.
class DataDirectoryLock {
 public:
  // Locks the state directory; does not touch the data disk, which may hang. ABORTED (reason
  // DATA_DIRECTORY_LOCKED) when another process holds it.
  static absl::StatusOr<DataDirectoryLock> Acquire(const std::string& data_dir,
                                                   const std::string& state_dir);
  // Locks the data directory's inode. Blocks on the data disk. OK when it already is locked, is
  // missing, or may not be read by us (its owner refuses every start then). ABORTED as above.
  absl::Status LockDirectory() const;

 private:
  struct Held {
    std::string data_dir;
    base::UniqueFd file;
    base::Mutex mutex;  // held while the data disk is touched
    base::UniqueFd directory ABSL_GUARDED_BY(mutex);
  };
  explicit DataDirectoryLock(std::shared_ptr<Held> held) : held_(std::move(held)) {}
  std::shared_ptr<Held> held_;
};

}  // namespace metal::pg
