#include "agent/transfer/channel.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>

#include "agent/base/status.h"

namespace metal::transfer {
namespace {

base::MonotonicTime Now() { return base::RealClock().Monotonic(); }

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using UniqueAddresses = std::unique_ptr<addrinfo, FreeAddresses>;

absl::StatusOr<UniqueAddresses> Resolve(const Address& address) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(address.host.c_str(), address.port.c_str(), &wanted, &list);
  if (error == 0) return UniqueAddresses(list);
  return base::Error(absl::StatusCode::kUnavailable, "resolve {}: {}", address.ToString(),
                     gai_strerror(error));
}

void SetOptions(int fd) {
  const int on = 1;
  const int silence = static_cast<int>(absl::ToInt64Milliseconds(kSilence));
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence, sizeof silence);
}

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(
      std::clamp<int64_t>(absl::ToInt64Milliseconds(duration) + 1, 1, INT_MAX / 2));
}

}  // namespace

absl::StatusOr<Address> Address::Parse(std::string_view text) {
  const size_t colon = text.rfind(':');
  Address address;
  if (colon != std::string_view::npos) {
    address.host = text.substr(0, colon);
    address.port = text.substr(colon + 1);
    if (address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']') {
      address.host = address.host.substr(1, address.host.size() - 2);
    } else if (address.host.find_first_of("[]: /") != std::string::npos) {
      address.host.clear();
    }
  }
  int port = 0;
  const char* const end = address.port.data() + address.port.size();
  const auto [at, error] = std::from_chars(address.port.data(), end, port);
  if (error == std::errc() && at == end && port > 0 && port <= 65535 && !address.host.empty()) {
    return address;
  }
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "\"{}\" is no address. HINT: HOST:PORT, for example 10.0.0.2:7422", text);
}

std::string Address::ToString() const {
  return host.find(':') == std::string::npos ? host + ":" + port : "[" + host + "]:" + port;
}

Channel::Channel(base::UniqueFd socket, std::string peer)
    : socket_(std::move(socket)), peer_(std::move(peer)) {}

Channel::~Channel() {
  if (ssl_ == nullptr) return;
  SSL_shutdown(ssl_.get());  // tells the other side, if the socket takes it at once
  ERR_clear_error();
}

absl::Status Channel::Lost(std::string_view why) const {
  return base::Error(absl::StatusCode::kUnavailable, "connection with {}: {}", peer_, why);
}

absl::Status Channel::LostBy(int error, std::string_view operation) const {
  return Lost(std::string(base::ErrnoStatus(error, operation, "it").message()));
}

absl::Status Channel::Wait(short events, base::MonotonicTime deadline) {
  while (true) {
    const absl::Duration left = deadline - Now();
    if (left <= absl::ZeroDuration()) return Lost("nothing was heard in time");
    pollfd entry{socket_.get(), events, 0};
    const int ready = poll(&entry, 1, Milliseconds(left));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return base::ErrnoStatus(errno, "poll", peer_);
  }
}

absl::StatusOr<size_t> Channel::Transfer(std::byte* in, const std::byte* out, size_t length,
                                         short& events) {
  if (ssl_ == nullptr) {
    const ssize_t moved = in != nullptr ? recv(socket_.get(), in, length, 0)
                                        : send(socket_.get(), out, length, MSG_NOSIGNAL);
    if (moved > 0) return static_cast<size_t>(moved);
    if (moved == 0) return Lost("the other side closed it");
    if (errno == EINTR) return Transfer(in, out, length, events);
    if (errno != EAGAIN) return LostBy(errno, "transfer");
    events = in != nullptr ? POLLIN : POLLOUT;
    return 0;
  }
  ERR_clear_error();
  size_t moved = 0;
  const int result = in != nullptr ? SSL_read_ex(ssl_.get(), in, length, &moved)
                                   : SSL_write_ex(ssl_.get(), out, length, &moved);
  if (result == 1) return moved;
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      events = POLLIN;
      return 0;
    case SSL_ERROR_WANT_WRITE:
      events = POLLOUT;
      return 0;
    case SSL_ERROR_ZERO_RETURN:
      return Lost("the other side closed it");
    case SSL_ERROR_SYSCALL:
      return errno != 0 ? LostBy(errno, "transfer") : Lost("the other side went away");
    default:
      return Lost(TakeTlsErrors());
  }
}

absl::Status Channel::Write(std::span<const std::byte> data) {
  base::MonotonicTime deadline = Now() + kSilence;
  while (!data.empty()) {
    short events = 0;
    METAL_ASSIGN_OR_RETURN(const size_t moved, Transfer(nullptr, data.data(), data.size(), events));
    data = data.subspan(moved);
    if (moved > 0) {
      if (!data.empty()) deadline = Now() + kSilence;
      continue;
    }
    METAL_RETURN_IF_ERROR(Wait(events, deadline));
  }
  return absl::OkStatus();
}

absl::Status Channel::Read(std::span<std::byte> out) {
  base::MonotonicTime deadline = Now() + kSilence;
  while (!out.empty()) {
    short events = 0;
    METAL_ASSIGN_OR_RETURN(const size_t moved, Transfer(out.data(), nullptr, out.size(), events));
    out = out.subspan(moved);
    if (moved > 0) {
      if (!out.empty()) deadline = Now() + kSilence;
      continue;
    }
    METAL_RETURN_IF_ERROR(Wait(events, deadline));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Channel::WaitReadable(absl::Duration timeout, int wake_fd) {
  if (ssl_ != nullptr && SSL_has_pending(ssl_.get()) != 0) return true;
  std::array<pollfd, 2> entries = {pollfd{socket_.get(), POLLIN, 0}, pollfd{wake_fd, POLLIN, 0}};
  const int wait = timeout > absl::ZeroDuration() ? Milliseconds(timeout) : 0;
  const int ready = poll(entries.data(), entries.size(), wait);
  if (ready < 0 && errno != EINTR) return base::ErrnoStatus(errno, "poll", peer_);
  return ready > 0 && entries[0].revents != 0;
}

absl::StatusOr<Channel::Received> Channel::ReadMessage() {
  HeaderBytes bytes;
  METAL_RETURN_IF_ERROR(Read(bytes));
  Received received;
  METAL_ASSIGN_OR_RETURN(received.header, DecodeHeader(bytes));
  received.body.resize(received.header.body_length);
  METAL_RETURN_IF_ERROR(Read(std::as_writable_bytes(std::span(received.body))));
  METAL_RETURN_IF_ERROR(CheckBody(received.header, received.body));
  return received;
}

absl::Status Channel::WriteMessage(uint8_t type, uint64_t sequence, std::string_view body,
                                   std::span<const std::byte> payload) {
  METAL_RETURN_IF_ERROR(
      Write(EncodeMessage(type, sequence, body, static_cast<uint32_t>(payload.size()))));
  return Write(payload);
}

void Channel::Interrupt() { shutdown(socket_.get(), SHUT_RDWR); }

absl::Status Channel::Handshake(const TlsFiles& tls, TlsSide side, const std::string& host,
                                absl::Duration timeout) {
  if (!tls.enabled()) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(ssl_, MakeSession(tls, side, socket_.get(), host));
  const base::MonotonicTime deadline = Now() + timeout;
  while (true) {
    ERR_clear_error();
    const int result = side == TlsSide::kServer ? SSL_accept(ssl_.get()) : SSL_connect(ssl_.get());
    if (result == 1) break;
    const int error = SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
      METAL_RETURN_IF_ERROR(Wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline));
      continue;
    }
    const long verified = SSL_get_verify_result(ssl_.get());
    if (error == SSL_ERROR_SYSCALL && verified == X509_V_OK)
      return Lost("it broke in the handshake");
    const std::string why =
        verified == X509_V_OK ? TakeTlsErrors() : X509_verify_cert_error_string(verified);
    ERR_clear_error();
    ssl_.reset();
    return base::Error(absl::StatusCode::kPermissionDenied,
                       "connection with {}: TLS handshake: {}. HINT: both nodes need certificates "
                       "of one authority, the source's for the name or address it is called by",
                       peer_, why);
  }
  names_ = PeerNames(ssl_.get());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Channel>> Channel::Connect(const Address& to, const TlsFiles& tls,
                                                          absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(const UniqueAddresses list, Resolve(to));
  absl::Status last = absl::UnavailableError("no address");
  for (const addrinfo* each = list.get(); each != nullptr; each = each->ai_next) {
    base::UniqueFd fd(
        socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, each->ai_protocol));
    if (!fd.valid()) return base::ErrnoStatus(errno, "create", "socket");
    const int raw = fd.get();
    SetOptions(raw);
    std::unique_ptr<Channel> channel(new Channel(std::move(fd), to.ToString()));
    if (connect(raw, each->ai_addr, each->ai_addrlen) != 0 && errno != EINPROGRESS) {
      last = channel->LostBy(errno, "connect");
      continue;
    }
    last = channel->Wait(POLLOUT, Now() + timeout);
    if (!last.ok()) continue;
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(raw, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    if (error != 0) {
      last = channel->LostBy(error, "connect");
      continue;
    }
    METAL_RETURN_IF_ERROR(channel->Handshake(tls, TlsSide::kClient, to.host, timeout));
    return channel;
  }
  return last;
}

absl::StatusOr<std::unique_ptr<Channel>> Channel::Accept(base::UniqueFd accepted,
                                                         const TlsFiles& tls,
                                                         absl::Duration timeout) {
  SetOptions(accepted.get());
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  char host[NI_MAXHOST] = "?";
  char port[NI_MAXSERV] = "?";
  if (getpeername(accepted.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, port,
                sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  }
  std::unique_ptr<Channel> channel(
      new Channel(std::move(accepted), Address{host, port}.ToString()));
  METAL_RETURN_IF_ERROR(channel->Handshake(tls, TlsSide::kServer, "", timeout));
  return channel;
}

}  // namespace metal::transfer
