#include "tools/metal-wal/transfer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "agent/backup/wal_protocol.h"

namespace metal::wal {
namespace {

constexpr const char* kControlFile = "global/pg_control";
constexpr int kRetryMilliseconds = 200;
constexpr uint32_t kOldestControlVersion = 1300, kNewestControlVersion = 9999;

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File() = default;
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int fd() const { return fd_; }
  bool Close() { return close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_ = -1;
};

struct Answer {
  ExitCode code = kTryAgain;
  std::string message = {};
  File prefetched = File();  // fetch: open when this file was filled instead of the given one
};

Answer Errno(ExitCode code, const char* what, const std::string& object, const char* hint) {
  const int error = errno;
  return {.code = code,
          .message = std::string(what) + " " + object + ": " + strerror(error) + hint};
}

// Seconds on a clock that only goes forward.
time_t Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec;
}

ExitCode Report(const Options& options, const Answer& answer) {
  // A standby asks for the next file every few seconds: that it is not there yet is no news.
  if (answer.code != kDone && answer.code != kNotFound) {
    fprintf(stderr, "metal-wal: %s %s: %s\n",
            options.command == Options::Command::kPush ? "push" : "fetch",
            options.file_name.c_str(), answer.message.c_str());
  }
  return answer.code;
}

// The system identifier is the first field of pg_control and never changes, so a concurrent write
// does no harm.
uint64_t ReadSystemIdentifier() {
  const File control(open(kControlFile, O_RDONLY | O_CLOEXEC));
  struct {
    uint64_t system_identifier;
    uint32_t version;
  } start{};
  if (control.fd() < 0 || pread(control.fd(), &start, 12, 0) != 12) return 0;
  if (start.version < kOldestControlVersion || start.version > kNewestControlVersion) return 0;
  return start.system_identifier;
}

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

// One connection: request with descriptors, response.
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

// An unnamed file in the directory of `path`; closed when the filesystem has none. PostgreSQL's
// umask decides about the group.
File Unnamed(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  return File(open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0640));
}

// Gives the unnamed file `fd` the name `path`, by way of `temporary` when `path` exists.
bool Publish(int fd, const std::string& temporary, const std::string& path) {
  const std::string source = "/proc/self/fd/" + std::to_string(fd);
  if (linkat(AT_FDCWD, source.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return true;
  if (errno != EEXIST) return false;
  unlink(temporary.c_str());
  return linkat(AT_FDCWD, source.c_str(), AT_FDCWD, temporary.c_str(), AT_SYMLINK_FOLLOW) == 0 &&
         rename(temporary.c_str(), path.c_str()) == 0;
}

bool IsSegment(const std::string& name) {
  return name.size() == 24 && name.find_first_not_of("0123456789ABCDEF") == std::string::npos;
}

// With files that have no name until they are complete: nothing is left when we are killed, and the
// agent may fill others ahead. `usable` becomes false when this filesystem or this process cannot
// do that.
Answer FetchUnnamed(const Options& options, const backup::WalRequest& request,
                    const std::string& temporary, time_t deadline, bool& usable) {
  std::vector<File> files;
  std::vector<int> descriptors;
  const size_t count = IsSegment(request.name) ? 1 + backup::kMaxWalSpares : 1;
  for (size_t i = 0; i < count; ++i) {
    files.push_back(Unnamed(options.path));
    if (files.back().fd() < 0) break;
    descriptors.push_back(files.back().fd());
  }
  usable = !descriptors.empty();
  if (!usable) return {};
  Answer answer = Ask(options, request, descriptors, deadline);
  if (answer.code != kDone) return answer;
  const int complete = answer.prefetched.fd() >= 0 ? answer.prefetched.fd() : descriptors.front();
  usable = Publish(complete, temporary, options.path);
  return answer;
}

Answer FetchNamed(const Options& options, const backup::WalRequest& request,
                  const std::string& temporary, time_t deadline) {
  File file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640));
  if (file.fd() < 0) return Errno(kFailed, "create", temporary, "");
  Answer answer = Ask(options, request, {file.fd()}, deadline);
  if (answer.code == kDone && !file.Close()) answer = Errno(kFailed, "close", temporary, "");
  if (answer.code == kDone && rename(temporary.c_str(), options.path.c_str()) != 0) {
    answer = Errno(kFailed, "rename to", options.path, "");
  }
  if (answer.code != kDone) unlink(temporary.c_str());
  return answer;
}

Answer FetchInto(const Options& options, const backup::WalRequest& request,
                 const std::string& temporary, time_t deadline) {
  bool usable = false;
  Answer answer = FetchUnnamed(options, request, temporary, deadline, usable);
  return usable ? std::move(answer) : FetchNamed(options, request, temporary, deadline);
}

}  // namespace

ExitCode Push(const Options& options) {
  backup::WalRequest request;
  request.operation = backup::WalOperation::kPush;
  request.name = options.file_name;
  request.system_identifier =
      options.system_identifier != 0 ? options.system_identifier : ReadSystemIdentifier();
  const File file(open(options.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() < 0) return Report(options, Errno(kFailed, "open", options.path, ""));
  return Report(options, Ask(options, request, {file.fd()}, Now() + options.timeout_seconds));
}

ExitCode Fetch(const Options& options) {
  const time_t deadline = Now() + options.timeout_seconds;
  backup::WalRequest request;
  request.operation = backup::WalOperation::kFetch;
  request.name = options.file_name;
  request.system_identifier =
      options.system_identifier != 0 ? options.system_identifier : ReadSystemIdentifier();
  Answer answer{
      kFailed,
      "cannot read global/pg_control here. HINT: run in the data directory or give --cluster"};
  if (request.system_identifier != 0) {
    const std::string temporary = options.path + ".metal-tmp";
    answer = FetchInto(options, request, temporary, deadline);
    while (options.strict && answer.code == kTryAgain && Now() < deadline) {
      poll(nullptr, 0, kRetryMilliseconds);
      answer = FetchInto(options, request, temporary, deadline);
    }
  }
  Report(options, answer);
  if (options.strict && answer.code != kDone && answer.code != kNotFound) return kStopRecovery;
  return answer.code;
}

}  // namespace metal::wal
