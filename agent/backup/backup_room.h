// Whether a backup fits into its repository, asked before it begins and while it runs.
// Threading: the calling thread; blocks on the disks of the repository and of the data directory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "agent/backup/catalog.h"
#include "agent/backup/server_watch.h"
#include "agent/base/clock.h"
#include "agent/base/config.h"
#include "agent/stream/codec.h"

namespace metal::backup {

struct BackupRoom {
  std::string repository;      // its directory
  std::string data_directory;  // of the server
  int read_only_at = 0;        // config.disk_read_only_at
  bool compressed = true;
};

BackupRoom BackupRoomOf(const base::AgentConfig& config, stream::CodecKind codec);

// What a backup is going to take: as much as the newest whole one of `earlier` (newest first) and a
// tenth more; without one the size of the database, half of it when it is compressed. Pure.
uint64_t ExpectedBytes(const std::vector<BackupInfo>& earlier, uint64_t database_bytes,
                       bool compressed);

// RESOURCE_EXHAUSTED (NO_SPACE) when after a backup like those before less would be free than is
// to stay free (base::LeastFree).
absl::Status CheckBackupRoom(const BackupRoom& room, const std::vector<BackupInfo>& earlier);

// What a backup depends on while it runs: its server, and the room of the server's file system when
// the repository lies on it too.
class BackupWatch {
 public:
  // Remembers the server that runs now. `clock` outlives this.
  BackupWatch(BackupRoom room, base::Clock& clock);
  // Errors of ServerWatch::Check; RESOURCE_EXHAUSTED (NO_SPACE) once the file system is full but
  // for what is to stay free, which is looked at once a second. Cheap: call it often.
  absl::Status Check();

 private:
  absl::Status CheckRoom();

  const BackupRoom room_;
  ServerWatch server_;
  base::Clock& clock_;
  bool shared_ = false;
  std::optional<base::MonotonicTime> looked_;
};

}  // namespace metal::backup
