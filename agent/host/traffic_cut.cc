#include "agent/host/traffic_cut.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/numbers.h"
#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"
#include "fmt/format.h"

namespace metal::host {
namespace {

constexpr absl::Duration kNftPatience = absl::Seconds(5);
constexpr uint32_t kAllStates = 0xfff & ~((1u << TCP_LISTEN) | (1u << TCP_CLOSE) |
                                          (1u << TCP_TIME_WAIT));  // what has something to lose
constexpr size_t kBuffer = 32 << 10;

absl::Status RunNft(const std::string& commands) {
  base::SubprocessOptions options;
  options.argv = {"nft", "-f", "-"};
  options.environment = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}};
  options.standard_input = commands;
  options.timeout = kNftPatience;
  const auto result = base::RunSubprocess(options);
  if (absl::IsNotFound(result.status())) {
    return absl::UnimplementedError("nft is not installed. HINT: apt-get install nftables");
  }
  if (!result.ok()) return base::Annotate(result.status(), "run nft");
  if (result->ok()) return absl::OkStatus();
  std::string said = result->standard_error.substr(0, result->standard_error.find('\n'));
  const bool unsupported = said.find("Operation not supported") != std::string::npos ||
                           said.find("Protocol not supported") != std::string::npos;
  return base::Error(
      unsupported ? absl::StatusCode::kUnimplemented : absl::StatusCode::kFailedPrecondition,
      "nft: {}", said);
}

struct DiagRequest {
  nlmsghdr header;
  inet_diag_req_v2 body;
};

// Answers each message of one request; `on_message` says whether to go on.
class SockDiag {
 public:
  static absl::StatusOr<SockDiag> Open() {
    SockDiag diag;
    diag.socket_ = base::UniqueFd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    if (!diag.socket_.valid()) return base::ErrnoStatus(errno, "open", "sock_diag");
    const timeval patience{.tv_sec = 2, .tv_usec = 0};
    setsockopt(diag.socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return diag;
  }

  absl::Status Dump(uint8_t family, std::vector<inet_diag_msg>& found) {
    DiagRequest request{};
    request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.body.sdiag_family = family;
    request.body.sdiag_protocol = IPPROTO_TCP;
    request.body.idiag_states = kAllStates;
    METAL_RETURN_IF_ERROR(Send(request));
    while (true) {
      METAL_ASSIGN_OR_RETURN(size_t left, Receive());
      for (const nlmsghdr* each = First(); NLMSG_OK(each, left); each = NLMSG_NEXT(each, left)) {
        if (each->nlmsg_type == NLMSG_DONE) return absl::OkStatus();
        if (each->nlmsg_type == NLMSG_ERROR) return ErrorOf(each, "list connections");
        inet_diag_msg message;
        if (each->nlmsg_len < NLMSG_LENGTH(sizeof message)) continue;
        std::memcpy(&message, NLMSG_DATA(each), sizeof message);
        found.push_back(message);
      }
    }
  }

  // NOT_FOUND: it has ended by itself. The same error for all that follow one which is the
  // channel's: its late answer would be taken for theirs.
  absl::Status Destroy(const inet_diag_msg& connection) {
    METAL_RETURN_IF_ERROR(broken_);
    DiagRequest request{};
    request.header.nlmsg_type = SOCK_DESTROY;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    request.body.sdiag_family = connection.idiag_family;
    request.body.sdiag_protocol = IPPROTO_TCP;
    request.body.idiag_states = kAllStates;
    request.body.id = connection.id;
    broken_ = Send(request);
    METAL_RETURN_IF_ERROR(broken_);
    const absl::StatusOr<size_t> left = Receive();
    broken_ = left.status();
    METAL_RETURN_IF_ERROR(broken_);
    const nlmsghdr* const answer = First();
    if (!NLMSG_OK(answer, *left) || answer->nlmsg_type != NLMSG_ERROR) {
      return absl::InternalError("sock_diag answered something else");
    }
    return ErrorOf(answer, "destroy a connection");
  }

 private:
  SockDiag() : buffer_(kBuffer) {}
  const nlmsghdr* First() const { return reinterpret_cast<const nlmsghdr*>(buffer_.data()); }

  absl::Status Send(DiagRequest& request) {
    request.header.nlmsg_len = sizeof request;
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    const ssize_t sent = sendto(socket_.get(), &request, sizeof request, 0,
                                reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
    if (sent == static_cast<ssize_t>(sizeof request)) return absl::OkStatus();
    return base::ErrnoStatus(errno, "ask", "sock_diag");
  }
  absl::StatusOr<size_t> Receive() {
    ssize_t received;
    do {
      received = recv(socket_.get(), buffer_.data(), buffer_.size(), 0);
    } while (received < 0 && errno == EINTR);
    if (received < 0) return base::ErrnoStatus(errno, "read", "sock_diag");
    return static_cast<size_t>(received);
  }
  static absl::Status ErrorOf(const nlmsghdr* message, std::string_view what) {
    nlmsgerr error;
    std::memcpy(&error, NLMSG_DATA(message), sizeof error);
    switch (-error.error) {
      case 0:
        return absl::OkStatus();
      case ENOENT:
        return absl::NotFoundError("it has ended");
      case EOPNOTSUPP:
      case EINVAL:
        return base::Error(absl::StatusCode::kUnimplemented,
                           "{}: the kernel has no CONFIG_INET_DIAG_DESTROY", what);
      default:
        return base::ErrnoStatus(-error.error, what, "by sock_diag");
    }
  }

  base::UniqueFd socket_;
  std::vector<char> buffer_;
  absl::Status broken_;
};

}  // namespace

std::string CutTableName(int port) { return fmt::format("metal_{}", port); }

std::string CutRules(int port) {
  const std::string table = CutTableName(port);
  // Added first, for what is not there cannot be deleted.
  return fmt::format(
      "add table inet {0}\n"
      "delete table inet {0}\n"
      "table inet {0} {{\n"
      "  set ports {{\n    type inet_service\n    elements = {{ {1} }}\n  }}\n"
      "  chain input {{\n"
      "    type filter hook input priority -150; policy accept;\n"
      "    tcp dport @ports tcp flags & (syn | ack) == syn reject with tcp reset\n"
      "  }}\n"
      "}}\n",
      table, port);
}

absl::Status RefuseConnections(int port) { return RunNft(CutRules(port)); }

absl::Status AllowConnections(int port) {
  return RunNft(fmt::format("add table inet {0}\ndelete table inet {0}\n", CutTableName(port)));
}

absl::StatusOr<Destroyed> DestroyEach(size_t count,
                                      const std::function<absl::Status(size_t)>& destroy) {
  Destroyed done;
  absl::Status first;
  for (size_t i = 0; i < count; ++i) {
    const absl::Status destroyed = destroy(i);
    if (destroyed.ok()) ++done.count;
    if (!destroyed.ok() && !absl::IsNotFound(destroyed) && first.ok()) first = destroyed;
  }
  if (first.ok()) return done;
  if (done.count == 0) return first;
  // The kernel can, as was seen: it says so too of a connection that came into TIME_WAIT meanwhile,
  // which has nothing to lose.
  if (!absl::IsUnimplemented(first)) done.first_error = std::string(first.message());
  return done;
}

absl::StatusOr<Destroyed> DestroyConnections(int port, const std::set<uint32_t>& spared) {
  METAL_ASSIGN_OR_RETURN(SockDiag diag, SockDiag::Open());
  std::vector<inet_diag_msg> connections;
  for (const uint8_t family : {uint8_t{AF_INET}, uint8_t{AF_INET6}}) {
    const absl::Status dumped = diag.Dump(family, connections);
    // A host without IPv6.
    if (!dumped.ok() && family == AF_INET) return dumped;
  }
  std::erase_if(connections, [&](const inet_diag_msg& each) {
    return ntohs(each.id.idiag_sport) != port || spared.contains(each.idiag_inode);
  });
  return DestroyEach(connections.size(), [&](size_t i) { return diag.Destroy(connections[i]); });
}

std::set<uint32_t> SocketsOf(int pid) {
  std::set<uint32_t> inodes;
  const std::string directory = fmt::format("/proc/{}/fd", pid);
  const auto names = base::ListDirectory(directory);
  if (!names.ok()) return inodes;
  for (const std::string& name : *names) {
    char target[64];
    const std::string link = base::JoinPath(directory, name);
    const ssize_t length = readlink(link.c_str(), target, sizeof target);
    std::string_view text(target, length > 0 ? static_cast<size_t>(length) : 0);
    constexpr std::string_view kSocket = "socket:[";
    uint32_t inode = 0;
    if (!text.starts_with(kSocket) || !text.ends_with("]")) continue;
    text.remove_prefix(kSocket.size());
    text.remove_suffix(1);
    if (absl::SimpleAtoi(std::string(text), &inode)) inodes.insert(inode);
  }
  return inodes;
}

}  // namespace metal::host
