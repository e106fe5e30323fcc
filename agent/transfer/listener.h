// Listener: accepts transfer connections and serves each on a thread of its own. Limits: at most
// `connections_max` at once, more are closed at once; a handshake takes at most 10 s. Threading:
// construct and Stop on one thread; the handler is called on many.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/fd.h"
#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/transfer/channel.h"

namespace metal::transfer {

struct ListenerOptions {
  std::string listen;  // "host:port"; port 0: any free one
  TlsFiles tls = {};
  size_t connections_max = 32;
  // Serves one connection; the channel is closed when it returns. Must return soon after the
  // channel was interrupted.
  std::function<void(Channel&)> serve = {};
};

class Listener {
 public:
  // FAILED_PRECONDITION when the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<Listener>> Start(ListenerOptions options);
  ~Listener();  // Stop()
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Bound "host:port".
  const std::string& address() const { return address_; }
  // Accepts no more, interrupts what runs and waits for it. Idempotent.
  void Stop();

 private:
  struct Connection {
    Channel* channel = nullptr;  // while it may be interrupted
    bool ended = false;
    base::Thread thread;
  };
  Listener(ListenerOptions options, base::UniqueFd socket, base::UniqueFd wake);
  void AcceptLoop();
  void AcceptOne();
  void Serve(Connection& connection, base::UniqueFd socket);
  std::list<Connection> TakeEnded();

  const ListenerOptions options_;
  std::string address_;
  base::UniqueFd socket_, wake_;
  base::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::list<Connection> connections_ ABSL_GUARDED_BY(mutex_);
  base::Thread thread_;
};

}  // namespace metal::transfer
