// The control group (cgroup v2) of a PostgreSQL: all of its processes, also those that it started
// and that left its session, end with one write to cgroup.kill. Of a systemd scope where there is
// systemd, else of a group of our own. For the privileged helper. Source: the kernel's
// admin-guide/cgroup-v2.rst. Threading: any thread; touches no disk.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace metal::host {

// Where cgroup v2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified beside v1. UNIMPLEMENTED:
// nowhere.
absl::StatusOr<std::string> GroupRoot();

// Makes the group `name` below `root` and puts the processes into it. `stale`: how the names of
// groups begin that are removed first where nothing lives in them any more. UNIMPLEMENTED: this
// process may not make groups there (a container).
absl::Status MakeServerGroup(const std::string& root, const std::string& name,
                             std::string_view stale, const std::vector<pid_t>& processes);

// Ends whatever is in the group `name` below `root`, directly or in system.slice: a group of
// another name is never touched. NOT_FOUND: there is none. UNIMPLEMENTED: a kernel before 5.14.
// Does not wait: what hangs in a disk is still there when this returns.
absl::Status KillServerGroup(const std::string& root, const std::string& name);

}  // namespace metal::host
