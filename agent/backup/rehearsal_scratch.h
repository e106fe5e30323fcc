// What a rehearsal makes outside of the repository: a directory with the restored copy, a directory
// with a unix socket, a server. Each rehearsal has a note <state_dir>/rehearsal_scratch.<id>,
// written before the first of them exists and removed after the last is gone, so that the agent
// that starts after a crash can end the server and remove the rest. A server is only ever ended
// through a pidfd, when it is the process that was noted (pid and start time) or works in the
// rehearsal's own data directory: a pid alone may be anybody's by then. Threading: one thread for
// each scratch.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/clock.h"

namespace metal::backup {

struct RehearsalScratch {
  std::string note;    // path of the note
  std::string root;    // <parent>/rehearsal-<label>-<random>
  std::string socket;  // below /tmp: the path of a unix socket has at most 107 bytes
  pid_t server_pid = 0;
  uint64_t server_start_ticks = 0;  // of /proc/PID/stat; 0: no server was noted
  std::string data() const { return root + "/data"; }
};

// Writes the note and makes both directories, mode 0700, by names that nobody has had before.
absl::StatusOr<RehearsalScratch> MakeRehearsalScratch(const std::string& state_dir,
                                                      const std::string& parent,
                                                      const std::string& label);
// Notes the server that was just launched.
absl::Status NoteRehearsalServer(RehearsalScratch& scratch, pid_t pid);
// Ends the server and what is left of its children (immediate, then kill), removes both directories
// and then the note. After an error the note stays. CANCELLED once `stop` says true: the agent
// ends, and its next start goes on with it. REQUIRES: no other thread uses the scratch.
absl::Status RemoveRehearsalScratch(const RehearsalScratch& scratch, const std::string& bin_dir,
                                    base::Clock& clock, const std::function<bool()>& stop = {});

// What rehearsals of earlier processes left. Notes that cannot be read are logged and left out.
// Call it before this process starts rehearsals. Reads the state directory only.
std::vector<RehearsalScratch> FindLeftRehearsals(const std::string& state_dir);

}  // namespace metal::backup
