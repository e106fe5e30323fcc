#include "tools/metal-wal/request.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

namespace metal::wal {
namespace {

bool Connect(int fd, const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return false;
  }
  path.copy(address.sun_path, path.size());
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

// All of `message` with the descriptors; errors are left to the answer: the agent may have turned
// us away before it listened.
void SendWithDescriptors(int socket, const std::string& message,
                         const std::vector<int>& descriptors) {
  alignas(cmsghdr) char control[CMSG_SPACE((1 + backup::kMaxWalSpares) * sizeof(int))] = {};
  const size_t size = descriptors.size() * sizeof(int);
  iovec part{const_cast<char*>(message.data()), message.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = CMSG_SPACE(size);
  cmsghdr* rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(size);
  memcpy(CMSG_DATA(rights), descriptors.data(), size);
  while (sendmsg(socket, &header, MSG_NOSIGNAL) < 0 && errno == EINTR) {
  }
}

// recvmsg; a descriptor that comes along goes to `file`.
ssize_t Receive(int socket, char* data, size_t size, File& file) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec part{data, size};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t n = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  const cmsghdr* rights = n < 0 ? nullptr : CMSG_FIRSTHDR(&header);
  if (rights != nullptr && rights->cmsg_type == SCM_RIGHTS &&
      rights->cmsg_len == CMSG_LEN(sizeof(int))) {
    int fd;
    memcpy(&fd, CMSG_DATA(rights), sizeof fd);
    file = File(fd);
  }
  return n;
}

// Exactly `length` bytes; false with errno set (0: the agent closed the connection).
bool ReceiveAll(int socket, size_t length, std::string& bytes, File& file) {
  bytes.assign(length, '\0');
  size_t have = 0;
  while (have < length) {
    const ssize_t n = Receive(socket, bytes.data() + have, length - have, file);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = 0;
    if (n <= 0) return false;
    have += static_cast<size_t>(n);
  }
  return true;
}

Answer NoAnswer() {
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    return {kTryAgain,
            "the agent did not answer in time. HINT: metalctl status shows whether the "
            "repository's disk hangs"};
  }
  return {
      kTryAgain,
      "the agent closed the connection. HINT: it was stopped or crashed; PostgreSQL tries again"};
}

Answer FromResponse(const backup::WalResponse& response) {
  switch (response.outcome) {
    case backup::WalOutcome::kOk:
      return {kDone};
    case backup::WalOutcome::kNotFound:
      return {kNotFound, response.message};
    case backup::WalOutcome::kTryAgain:
      return {kTryAgain, response.message};
    case backup::WalOutcome::kFailed:
      break;
  }
  return {kFailed, response.message};
}

}  // namespace

Answer Errno(ExitCode code, const char* what, const std::string& object, const char* hint) {
  const int error = errno;
  return {.code = code,
          .message = std::string(what) + " " + object + ": " + strerror(error) + hint};
}

time_t Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec;
}

Answer Ask(const Options& options, const backup::WalRequest& request,
           const std::vector<int>& descriptors, time_t deadline) {
  const File socket_file(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int fd = socket_file.fd();
  if (fd < 0) return Errno(kTryAgain, "create", "socket", "");
  const timeval timeout{std::max<time_t>(deadline - Now(), 1), 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (!Connect(fd, options.socket_path)) {
    return Errno(
        kTryAgain, "connect to", options.socket_path,
        ". HINT: is metal-agent running? is this its agent.wal_socket? PostgreSQL tries again");
  }
  SendWithDescriptors(fd, backup::EncodeWalRequest(request), descriptors);
  std::string bytes;
  File prefetched;
  if (!ReceiveAll(fd, backup::kWalLengthBytes, bytes, prefetched)) return NoAnswer();
  const auto length = backup::DecodeWalLength(bytes);
  if (length && !ReceiveAll(fd, *length, bytes, prefetched)) return NoAnswer();
  auto response = length ? backup::DecodeWalResponse(bytes) : std::nullopt;
  if (!response || (response->prefetched && prefetched.fd() < 0)) {
    return {kFailed,
            "the agent's answer cannot be read. HINT: metal-wal and metal-agent must be of the "
            "same version"};
  }
  Answer answer = FromResponse(*response);
  if (response->prefetched) answer.prefetched = std::move(prefetched);
  return answer;
}

}  // namespace metal::wal
