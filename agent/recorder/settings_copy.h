// The server's configuration files, and a copy of them in memory for when their disk cannot be
// asked: then they are wanted most.
// Threading: SettingsCopy is thread-safe; reading blocks with the disk.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/mutex.h"
#include "agent/observe/status_board.h"

namespace metal::recorder {

// By name; at most 256 KiB each (OUT_OF_RANGE). They may hold secrets.
using SettingsFiles = std::map<std::string, absl::StatusOr<std::string>>;
SettingsFiles ReadSettings(const std::string& data_directory);

// Why the data disk is better left alone; empty: it is not known to hang.
std::string TroubleOfDataDisk(const observe::NodeStatus& status);
// True when its probes come back. Without probes nobody knows.
bool DataDiskIsWell(const observe::NodeStatus& status);

// At most 1.25 MiB.
class SettingsCopy {
 public:
  struct File {
    std::string text;
    absl::Time read;
  };
  using Kept = std::map<std::string, File>;  // those that were there, by name

  // Replaces what is kept; of a file that is there and could not be read the earlier text stays.
  // Without any file nothing changes.
  void Keep(SettingsFiles files, absl::Time now);
  // Never null; empty: nothing was kept yet.
  std::shared_ptr<const Kept> Get() const;

 private:
  mutable base::Mutex mutex_;
  std::shared_ptr<const Kept> kept_ ABSL_GUARDED_BY(mutex_) = std::make_shared<const Kept>();
};

}  // namespace metal::recorder
