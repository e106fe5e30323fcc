#include "agent/host/server_group.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::host {
namespace {

// A control file takes one write or none, and is never made.
absl::Status WriteControl(const std::string& path, std::string_view text) {
  const base::UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid()) return base::ErrnoStatus(errno, "open", path);
  if (write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) {
    return absl::OkStatus();
  }
  return base::ErrnoStatus(errno, "write", path);
}

}  // namespace

absl::StatusOr<std::string> GroupRoot() {
  for (const char* root : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    if (base::PathExists(base::JoinPath(root, "cgroup.controllers"))) return root;
  }
  return absl::UnimplementedError("no cgroup v2 is mounted");
}

absl::Status MakeServerGroup(const std::string& root, const std::string& name,
                             std::string_view stale, const std::vector<pid_t>& processes) {
  const auto names = base::ListDirectory(root);
  if (names.ok()) {
    for (const std::string& each : *names) {
      // The kernel removes no group in which something lives.
      if (each.starts_with(stale) && each != name) rmdir(base::JoinPath(root, each).c_str());
    }
  }
  const std::string group = base::JoinPath(root, name);
  if (mkdir(group.c_str(), 0755) != 0 && errno != EEXIST) {
    const bool forbidden = errno == EROFS || errno == EACCES || errno == EPERM;
    const absl::Status failed = base::ErrnoStatus(errno, "make", group);
    return forbidden ? absl::UnimplementedError(failed.message()) : failed;
  }
  for (const pid_t pid : processes) {
    const absl::Status moved =
        WriteControl(base::JoinPath(group, "cgroup.procs"), fmt::format("{}", pid));
    // A child that has ended meanwhile.
    if (!moved.ok() && pid == processes.front()) return moved;
  }
  return absl::OkStatus();
}

absl::Status KillServerGroup(const std::string& root, const std::string& name) {
  for (const std::string& parent : {root, base::JoinPath(root, "system.slice")}) {
    const std::string group = base::JoinPath(parent, name);
    if (!base::PathExists(group)) continue;
    const std::string control = base::JoinPath(group, "cgroup.kill");
    if (!base::PathExists(control)) {
      return base::Error(absl::StatusCode::kUnimplemented, "the kernel has no {}", control);
    }
    return WriteControl(control, "1");
  }
  return base::Error(absl::StatusCode::kNotFound, "no group {} below {}", name, root);
}

}  // namespace metal::host
