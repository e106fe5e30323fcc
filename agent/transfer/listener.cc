#include "agent/transfer/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "agent/base/log.h"
#include "agent/base/status.h"

namespace metal::transfer {
namespace {

constexpr int kBacklog = 32;
constexpr absl::Duration kHandshake = absl::Seconds(10);
constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);  // when descriptors run out

absl::Status CannotListen(const std::string& listen, std::string_view why) {
  return base::Error(absl::StatusCode::kFailedPrecondition,
                     "transfer: listen on {}: {}. HINT: check transfer.listen", listen, why);
}

absl::StatusOr<base::UniqueFd> Bind(const std::string& listen_on) {
  const size_t colon = listen_on.rfind(':');
  std::string host = listen_on.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  const std::string port = listen_on.substr(colon + 1);
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_PASSIVE;
  addrinfo* list = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &wanted, &list); error != 0) {
    return CannotListen(listen_on, gai_strerror(error));
  }
  base::UniqueFd fd(socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  const bool bound =
      fd.valid() && setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
      bind(fd.get(), list->ai_addr, list->ai_addrlen) == 0 && listen(fd.get(), kBacklog) == 0;
  const int error = errno;
  freeaddrinfo(list);
  if (bound) return fd;
  return CannotListen(listen_on,
                      std::string(base::ErrnoStatus(error, "bind", listen_on).message()));
}

std::string WithPort(const std::string& listen, int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return listen;
  const uint16_t port = address.ss_family == AF_INET6
                            ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                            : reinterpret_cast<const sockaddr_in&>(address).sin_port;
  return fmt::format("{}{}", listen.substr(0, listen.rfind(':') + 1), ntohs(port));
}

}  // namespace

Listener::Listener(ListenerOptions options, base::UniqueFd socket, base::UniqueFd wake)
    : options_(std::move(options)),
      address_(WithPort(options_.listen, socket.get())),
      socket_(std::move(socket)),
      wake_(std::move(wake)) {}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Start(ListenerOptions options) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd socket, Bind(options.listen));
  base::UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return base::ErrnoStatus(errno, "create", "eventfd");
  std::unique_ptr<Listener> listener(
      new Listener(std::move(options), std::move(socket), std::move(wake)));
  Listener* const raw = listener.get();
  listener->thread_ = base::Thread("transfer", [raw] { raw->AcceptLoop(); });
  return listener;
}

Listener::~Listener() { Stop(); }

void Listener::Stop() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    for (Connection& connection : connections_) {
      if (connection.channel != nullptr) connection.channel->Interrupt();
    }
  }
  const uint64_t one = 1;
  if (write(wake_.get(), &one, sizeof one) != sizeof one) {
    base::LogWarning("transfer.wake_failed errno={}", errno);
  }
  thread_.Join();
  std::list<Connection> rest;
  {
    base::MutexLock lock(mutex_);
    rest.swap(connections_);
  }
  rest.clear();  // joins
}

std::list<Listener::Connection> Listener::TakeEnded() {
  std::list<Connection> ended;
  base::MutexLock lock(mutex_);
  for (auto at = connections_.begin(); at != connections_.end();) {
    const auto next = std::next(at);
    if (at->ended) ended.splice(ended.end(), connections_, at);
    at = next;
  }
  return ended;
}

void Listener::AcceptLoop() {
  while (true) {
    std::array<pollfd, 2> entries = {pollfd{socket_.get(), POLLIN, 0},
                                     pollfd{wake_.get(), POLLIN, 0}};
    if (poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) return;
    {
      base::MutexLock lock(mutex_);
      if (stopping_) return;
    }
    TakeEnded();
    if (entries[0].revents != 0) AcceptOne();
  }
}

void Listener::AcceptOne() {
  base::UniqueFd accepted(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!accepted.valid()) {
    if (errno == EMFILE || errno == ENFILE) base::RealClock().Sleep(kAcceptPause);
    return;
  }
  base::MutexLock lock(mutex_);
  if (connections_.size() >= options_.connections_max) {
    base::LogWarning("transfer.refused connections={}", connections_.size());
    return;
  }
  Connection& connection = connections_.emplace_back();
  connection.thread = base::Thread("transfer-conn", [this, &connection, fd = accepted.Release()] {
    Serve(connection, base::UniqueFd(fd));
  });
}

void Listener::Serve(Connection& connection, base::UniqueFd socket) {
  auto channel = Channel::Accept(std::move(socket), options_.tls, kHandshake);
  bool serve = channel.ok();
  if (!serve) {
    base::LogWarning("transfer.handshake_failed reason=\"{}\"",
                     std::string(channel.status().message()));
  } else {
    base::MutexLock lock(mutex_);
    serve = !stopping_;
    if (serve) connection.channel = channel->get();
  }
  if (serve) options_.serve(**channel);
  base::MutexLock lock(mutex_);
  connection.channel = nullptr;
  connection.ended = true;
}

}  // namespace metal::transfer
