#include "agent/backup/wal_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr int kBacklog = 64;

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "WAL socket path \"{}\" must have 1 to {} bytes. HINT: set agent.wal_socket "
                       "to a shorter path",
                       path, sizeof address.sun_path - 1);
  }
  path.copy(address.sun_path, path.size());
  return address;
}

absl::Status CheckDirectory(const std::string& directory) {
  METAL_RETURN_IF_ERROR(base::MakeDirectories(directory, 0700));
  struct stat status;
  if (stat(directory.c_str(), &status) != 0) return base::ErrnoStatus(errno, "stat", directory);
  if ((status.st_mode & S_IWOTH) != 0 && (status.st_mode & S_ISVTX) == 0) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "everybody may write in {}: anyone could replace the WAL socket. HINT: chmod o-w {}",
        directory, directory);
  }
  return absl::OkStatus();
}

absl::StatusOr<base::UniqueFd> NewSocket() {
  base::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return base::ErrnoStatus(errno, "create", "WAL socket");
  return fd;
}

// Removes a socket file that nobody listens on.
absl::Status RemoveStale(const std::string& path, const sockaddr_un& address) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0) {
    return errno == ENOENT ? absl::OkStatus() : base::ErrnoStatus(errno, "stat", path);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "{} exists and is no socket. HINT: remove it or set agent.wal_socket to another path",
        path);
  }
  METAL_ASSIGN_OR_RETURN(const base::UniqueFd probe, NewSocket());
  const int connected =
      connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (connected == 0 || errno != ECONNREFUSED) {
    return base::Error(
        absl::StatusCode::kAlreadyExists,
        "another process serves {}. HINT: stop the other metal-agent or set agent.wal_socket",
        path);
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return base::ErrnoStatus(errno, "unlink", path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<base::UniqueFd> ListenForWal(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  METAL_RETURN_IF_ERROR(CheckDirectory(base::DirectoryOf(path)));
  METAL_RETURN_IF_ERROR(RemoveStale(path, address));
  METAL_ASSIGN_OR_RETURN(base::UniqueFd listener, NewSocket());
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return base::ErrnoStatus(errno, "bind", path);
  }
  if (chmod(path.c_str(), 0600) != 0) return base::ErrnoStatus(errno, "chmod", path);
  if (listen(listener.get(), kBacklog) != 0) return base::ErrnoStatus(errno, "listen on", path);
  return listener;
}

}  // namespace metal::backup
