// A relay between a client and a listener that harms what it passes, as a network does.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "agent/base/check.h"
#include "agent/base/thread.h"
#include "agent/transfer/channel.h"

namespace metal::backup {

// Passes bytes between a client and `to`. After its share of bytes from the far side each
// connection is broken, or goes on with one bit of the next byte flipped.
class HarmfulRelay {
 public:
  enum class Harm { kBreak, kFlip };
  HarmfulRelay(transfer::Address to, std::vector<size_t> shares, Harm harm = Harm::kBreak)
      : to_(to), shares_(std::move(shares)), harm_(harm) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    METAL_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), length) == 0);
    METAL_CHECK(listen(listener_, 16) == 0);
    METAL_CHECK(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = base::Thread("relay", [this] { Accept(); });
  }
  ~HarmfulRelay() {
    shutdown(listener_, SHUT_RDWR);
    thread_.Join();
    close(listener_);
    passing_.clear();
  }
  transfer::Address address() const { return {"127.0.0.1", std::to_string(port_)}; }
  int harmed() const { return harmed_; }

 private:
  void Accept() {
    while (true) {
      const int near = accept(listener_, nullptr, nullptr);
      if (near < 0) return;
      const int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      address.sin_port = htons(static_cast<uint16_t>(std::stoi(to_.port)));
      if (connect(far, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        close(near);
        close(far);
        continue;
      }
      const size_t share = next_ < shares_.size() ? shares_[next_++] : SIZE_MAX;
      passing_.emplace_back("relay-pass", [this, near, far, share] { Pass(near, far, share); });
    }
  }
  void Pass(int near, int far, size_t share) {
    std::vector<char> buffer(64 << 10);
    size_t passed = 0;
    while (true) {
      pollfd fds[] = {{near, POLLIN, 0}, {far, POLLIN, 0}};
      poll(fds, 2, -1);
      const bool from_far = fds[1].revents != 0;
      const ssize_t got = recv(from_far ? far : near, buffer.data(), buffer.size(), 0);
      if (got <= 0) break;
      if (from_far) passed += static_cast<size_t>(got);
      if (passed > share) {
        ++harmed_;
        if (harm_ == Harm::kBreak) break;
        buffer[share - (passed - static_cast<size_t>(got))] ^= 4;
        share = SIZE_MAX;
      }
      if (send(from_far ? near : far, buffer.data(), static_cast<size_t>(got), MSG_NOSIGNAL) != got)
        break;
    }
    close(near);
    close(far);
  }

  const transfer::Address to_;
  const std::vector<size_t> shares_;
  const Harm harm_;
  size_t next_ = 0;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<int> harmed_{0};
  std::list<base::Thread> passing_;
  base::Thread thread_;
};

}  // namespace metal::backup
