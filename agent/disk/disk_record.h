// What is to be known of the node's disks when the agent starts anew: which drive lies under each
// role, and which faults an operator has acknowledged. One text file in the state directory.
// Threading: DiskRecord is a plain value; RecordFile is thread-safe.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/disk/detached_call.h"
#include "agent/disk/faults/acknowledgement.h"
#include "agent/disk/nvme/drive_logs.h"

namespace metal::disk {

// The drives under a watched directory.
struct NotedDrives {
  std::string directory;
  std::vector<DriveIdentity> drives;
  friend bool operator==(const NotedDrives&, const NotedDrives&) = default;
};

struct DiskRecord {
  std::map<std::string, NotedDrives> drives;  // by role
  std::vector<Acknowledgement> acknowledged;
  friend bool operator==(const DiskRecord&, const DiskRecord&) = default;
};

std::string EncodeRecord(const DiskRecord& record);
// DATA_LOSS names the line that makes no sense.
absl::StatusOr<DiskRecord> DecodeRecord(std::string_view text);

// The file. Its disk may hang: a call that takes longer than its patience is left behind, and its
// caller is told. Empty path: nothing is kept.
class RecordFile {
 public:
  explicit RecordFile(std::string path) : path_(std::move(path)) {}

  // An empty record where there is no file. DEADLINE_EXCEEDED: ask again.
  absl::StatusOr<DiskRecord> Load(absl::Duration patience);
  // Durable when OK; of several at once the latest `version` stays. DEADLINE_EXCEEDED: it may be
  // written later.
  absl::Status Save(const DiskRecord& record, uint64_t version, absl::Duration patience);

 private:
  struct Written {
    base::Mutex mutex;
    uint64_t version ABSL_GUARDED_BY(mutex) = 0;
  };
  const std::string path_;
  std::shared_ptr<Written> written_ = std::make_shared<Written>();
  DetachedCalls calls_{1};
};

}  // namespace metal::disk
