#include "agent/backup/wal_connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kStopCheckInterval = absl::Milliseconds(100);
constexpr size_t kMaxDescriptors = 1 + kMaxWalSpares;

absl::Status BadRequest(std::string_view what) {
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "WAL request: {}. HINT: metal-wal and metal-agent must be of the same version",
                     what);
}

// Takes the descriptors out of a control message. False when there are too many in all.
bool TakeDescriptors(msghdr& message, std::vector<base::UniqueFd>& files) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof fd);
      files.emplace_back(fd);
    }
  }
  return files.size() <= kMaxDescriptors && (message.msg_flags & MSG_CTRUNC) == 0;
}

// sendmsg of some of `bytes`, with `file` when it is not negative.
ssize_t SendSome(int socket, std::string_view bytes, int file) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (file >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &file, sizeof file);
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

absl::StatusOr<uid_t> WalConnection::PeerUser() const {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return base::ErrnoStatus(errno, "read peer credentials of", "WAL socket");
  }
  return credentials.uid;
}

absl::StatusOr<WalConnection::Received> WalConnection::Receive(absl::Duration timeout) {
  const base::MonotonicTime deadline = clock_.Monotonic() + timeout;
  std::string bytes;
  std::vector<base::UniqueFd> files;
  size_t want = kWalLengthBytes;
  bool length_known = false;
  while (bytes.size() < want) {
    METAL_RETURN_IF_ERROR(WaitReady(POLLIN, deadline));
    METAL_RETURN_IF_ERROR(ReceiveSome(want - bytes.size(), bytes, files));
    if (!length_known && bytes.size() == want) {
      const auto length = DecodeWalLength(bytes);
      if (!length) return BadRequest("bad length");
      want += *length;
      length_known = true;
    }
  }
  auto request = DecodeWalRequest(std::string_view(bytes).substr(kWalLengthBytes));
  if (!request) return BadRequest("cannot be decoded");
  if (files.empty()) return BadRequest("no descriptor came with it");
  Received received{*std::move(request), std::move(files.front()), {}};
  files.erase(files.begin());
  if (received.request.operation == WalOperation::kPush && !files.empty()) {
    return BadRequest("more than one descriptor came with it");
  }
  received.spares = std::move(files);
  return received;
}

absl::Status WalConnection::Send(const WalResponse& response, int file, absl::Duration timeout) {
  const base::MonotonicTime deadline = clock_.Monotonic() + timeout;
  const std::string bytes = EncodeWalResponse(response);
  std::string_view rest = bytes;
  while (!rest.empty()) {
    // First without a look at `stopping_`: what was done is told even while the agent stops.
    const ssize_t n = SendSome(socket_.get(), rest, file);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
      METAL_RETURN_IF_ERROR(WaitReady(POLLOUT, deadline));
      continue;
    }
    if (n < 0) return base::Error(absl::StatusCode::kUnavailable, "the WAL client went away");
    rest.remove_prefix(static_cast<size_t>(n));
    file = -1;
  }
  return absl::OkStatus();
}

absl::Status WalConnection::WaitReady(short events, base::MonotonicTime deadline) const {
  while (true) {
    if (stopping_()) return base::Error(absl::StatusCode::kCancelled, "the agent is stopping");
    const absl::Duration left = deadline - clock_.Monotonic();
    if (left <= absl::ZeroDuration()) {
      return base::Error(absl::StatusCode::kDeadlineExceeded,
                         "the WAL client sent or took nothing in time");
    }
    pollfd item{socket_.get(), events, 0};
    const absl::Duration wait = std::min(left, kStopCheckInterval);
    const int ready = poll(&item, 1, static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1);
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return base::ErrnoStatus(errno, "poll", "WAL socket");
  }
}

absl::Status WalConnection::ReceiveSome(size_t want, std::string& bytes,
                                        std::vector<base::UniqueFd>& files) const {
  char buffer[kMaxWalBody];
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))];
  iovec part{buffer, std::min(want, sizeof buffer)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return absl::OkStatus();
  if (n < 0) return base::Error(absl::StatusCode::kUnavailable, "the WAL client went away");
  if (!TakeDescriptors(message, files)) return BadRequest("too many descriptors came with it");
  if (n == 0) return base::Error(absl::StatusCode::kUnavailable, "the WAL client went away");
  bytes.append(buffer, static_cast<size_t>(n));
  return absl::OkStatus();
}

}  // namespace metal::backup
