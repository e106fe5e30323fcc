// tls_speed: how many bytes this machine moves through TLS connections over loopback, with the
// agent's own settings of TLS (agent/transfer/tls.h) and nothing else: no disk, no checksums. Each
// connection has a thread at either end, which encrypts or decrypts a buffer of 1 MiB again and
// again.
//
//   tls_speed --certificate FILE --key FILE --authority FILE [--links 2] [--amount BYTES] [--wait]
//
//   --amount  bytes through all connections together (default 4 GiB)
//   --wait    prints "ready" and starts when a line arrives on standard input
//
// Prints one line of JSON: {"links", "bytes", "cipher", "seconds"}.
#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/fd.h"
#include "agent/base/thread.h"
#include "agent/transfer/tls.h"
#include "fmt/format.h"

namespace metal {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr size_t kBuffer = size_t{1} << 20;

struct Options {
  transfer::TlsFiles files;
  uint64_t links = 2;
  uint64_t amount = uint64_t{4} << 30;
  bool wait = false;
};

[[noreturn]] void Fail(const std::string& message) {
  fmt::print(stderr, "tls_speed: {}\n", message);
  std::exit(1);
}

uint64_t Number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0) {
    Fail(fmt::format("{} is no number above 0", text));
  }
  return value;
}

Options Parse(std::span<char*> arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    const auto value = [&]() -> std::string_view {
      if (++i >= arguments.size()) Fail(fmt::format("{} needs a value", argument));
      return arguments[i];
    };
    if (argument == "--certificate") {
      options.files.certificate = value();
    } else if (argument == "--key") {
      options.files.key = value();
    } else if (argument == "--authority") {
      options.files.authority = value();
    } else if (argument == "--links") {
      options.links = Number(value());
    } else if (argument == "--amount") {
      options.amount = Number(value());
    } else if (argument == "--wait") {
      options.wait = true;
    } else {
      Fail(fmt::format("unknown option {}. HINT: see the head of tls_speed.cc", argument));
    }
  }
  if (!options.files.enabled()) Fail("no --certificate");
  return options;
}

// Two ends of one TCP connection over loopback.
std::array<base::UniqueFd, 2> Connect() {
  const base::UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  base::UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener.get(), raw, length) != 0 || listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), raw, &length) != 0 || connect(client.get(), raw, length) != 0) {
    Fail("no connection over loopback");
  }
  base::UniqueFd server(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!server.valid()) Fail("no connection over loopback");
  return {std::move(client), std::move(server)};
}

class Link {
 public:
  explicit Link(const transfer::TlsFiles& files) : fds_(Connect()) {
    for (const auto side : {transfer::TlsSide::kClient, transfer::TlsSide::kServer}) {
      const size_t end = side == transfer::TlsSide::kClient ? 0 : 1;
      auto session = transfer::MakeSession(files, side, fds_[end].get(), "127.0.0.1");
      if (!session.ok()) Fail(std::string(session.status().message()));
      ends_[end] = *std::move(session);
    }
    base::Thread other("tls-accept", [this] { Shake(SSL_accept(ends_[1].get())); });
    Shake(SSL_connect(ends_[0].get()));
  }

  void Send(uint64_t amount) {
    const std::vector<char> buffer(kBuffer, 'x');
    while (amount > 0) {
      size_t moved = 0;
      const size_t wanted = static_cast<size_t>(std::min<uint64_t>(amount, kBuffer));
      Shake(SSL_write_ex(ends_[1].get(), buffer.data(), wanted, &moved));
      amount -= moved;
    }
  }

  void Receive(uint64_t amount) {
    std::vector<char> buffer(kBuffer);
    while (amount > 0) {
      size_t moved = 0;
      const size_t wanted = static_cast<size_t>(std::min<uint64_t>(amount, kBuffer));
      Shake(SSL_read_ex(ends_[0].get(), buffer.data(), wanted, &moved));
      amount -= moved;
    }
  }

  std::string cipher() const { return SSL_get_cipher_name(ends_[0].get()); }

 private:
  static void Shake(int result) {
    if (result != 1) Fail(transfer::TakeTlsErrors());
  }

  std::array<base::UniqueFd, 2> fds_;
  std::array<transfer::UniqueSsl, 2> ends_;  // client, which receives; server, which sends
};

int Main(std::span<char*> arguments) {
  const Options options = Parse(arguments);
  std::vector<std::unique_ptr<Link>> links;
  for (uint64_t i = 0; i < options.links; ++i) {
    links.push_back(std::make_unique<Link>(options.files));
  }
  if (options.wait) {
    fmt::print("ready\n");
    std::fflush(stdout);
    while (std::getchar() != '\n' && !std::feof(stdin)) continue;
  }
  const auto begin = SteadyClock::now();
  const uint64_t each = options.amount / options.links;
  {
    std::vector<base::Thread> threads;
    for (const auto& link : links) {
      threads.emplace_back("tls-send", [&link, each] { link->Send(each); });
      threads.emplace_back("tls-receive", [&link, each] { link->Receive(each); });
    }
  }
  const std::chrono::duration<double> took = SteadyClock::now() - begin;
  fmt::print("{{\"links\": {}, \"bytes\": {}, \"cipher\": \"{}\", \"seconds\": {:.6f}}}\n",
             options.links, each * options.links, links.front()->cipher(), took.count());
  return 0;
}

}  // namespace
}  // namespace metal

int main(int argc, char** argv) {
  return metal::Main(std::span<char*>(argv + 1, static_cast<size_t>(argc - 1)));
}
