#include "agent/gate/nowhere.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::gate {
namespace {

constexpr int kPort = 1;
constexpr int kBacklog = 4096;

std::string SocketPath(const std::string& directory) {
  return fmt::format("{}/nowhere/.s.PGSQL.{}", directory, kPort);
}

}  // namespace

Target Nowhere::In(const std::string& directory) { return {directory + "/nowhere", kPort}; }

absl::StatusOr<std::unique_ptr<Nowhere>> Nowhere::Open(const std::string& directory) {
  METAL_RETURN_IF_ERROR(base::MakeDirectories(directory + "/nowhere", 0700));
  std::string path = SocketPath(directory);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "{} is too long for a unix socket. HINT: choose a shorter agent.state_dir",
                       path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  base::UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return base::ErrnoStatus(errno, "make a socket for", path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return base::ErrnoStatus(errno, "remove", path);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.get(), kBacklog) != 0) {
    return base::ErrnoStatus(errno, "listen on", path);
  }
  return std::unique_ptr<Nowhere>(new Nowhere(std::move(path), std::move(socket)));
}

Nowhere::Nowhere(std::string path, base::UniqueFd socket)
    : path_(std::move(path)), socket_(std::move(socket)) {}

Nowhere::~Nowhere() { ::unlink(path_.c_str()); }

}  // namespace metal::gate
