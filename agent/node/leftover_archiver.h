// LeftoverArchiver: archives on a standby what it had not archived as a primary; see
// agent/backup/wal_leftovers.h. Threading: one caller at a time; the work is done on a thread of
// its own, which may hang with a disk and is then left behind.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "agent/backup/wal_archive.h"
#include "agent/base/config.h"
#include "agent/disk/detached_call.h"
#include "agent/observe/status_board.h"

namespace metal::node {

class LeftoverArchiver {
 public:
  LeftoverArchiver(const base::AgentConfig& config, std::shared_ptr<backup::WalArchive> archive);
  // The archive tells no event of its own after this.
  ~LeftoverArchiver();
  LeftoverArchiver(const LeftoverArchiver&) = delete;
  LeftoverArchiver& operator=(const LeftoverArchiver&) = delete;

  // After a look at the server: begins to archive, once for each look at its archiving, when it is
  // a standby that streams, archives nothing itself, would archive here, and has something left.
  // Blocks on no disk.
  void Look(const observe::NodeStatus& status);

 private:
  const std::string data_directory_, scratch_directory_, archive_command_;
  const std::shared_ptr<backup::WalArchive> archive_;
  absl::Time looked_ = absl::InfinitePast();  // when the archiving was that was last decided by
  disk::DetachedCall<bool> call_;
};

}  // namespace metal::node
