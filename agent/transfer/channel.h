// Channel: one TCP connection between two agents, with TLS when it is configured. Every wait ends:
// a side that sends or takes nothing for kSilence counts as cut off, so whoever is idle sends
// something more often than that. Threading: one thread at a time, except Interrupt.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/transfer/message.h"
#include "agent/transfer/tls.h"

namespace metal::transfer {

inline constexpr absl::Duration kSilence = absl::Seconds(20);
// How often an idle side says that it is there.
inline constexpr absl::Duration kAliveInterval = absl::Seconds(2);

// "host:port", "[::1]:port".
struct Address {
  std::string host;  // without brackets
  std::string port;
  static absl::StatusOr<Address> Parse(std::string_view text);
  std::string ToString() const;
};

class Channel {
 public:
  // UNAVAILABLE: nobody listens, or the connection broke; DEADLINE_EXCEEDED; PERMISSION_DENIED: the
  // other side's certificate or ours was refused.
  static absl::StatusOr<std::unique_ptr<Channel>> Connect(const Address& to, const TlsFiles& tls,
                                                          absl::Duration timeout);
  // Takes an accepted socket.
  static absl::StatusOr<std::unique_ptr<Channel>> Accept(base::UniqueFd socket, const TlsFiles& tls,
                                                         absl::Duration timeout);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // All of `data`. UNAVAILABLE when the connection is lost or silent.
  absl::Status Write(std::span<const std::byte> data);
  absl::Status Write(std::string_view data) { return Write(std::as_bytes(std::span(data))); }
  // Exactly out.size() bytes.
  absl::Status Read(std::span<std::byte> out);
  // True when bytes can be read (or the connection's end); false after `timeout` or when `wake_fd`
  // (an eventfd, −1: none) became readable.
  absl::StatusOr<bool> WaitReadable(absl::Duration timeout, int wake_fd = -1);

  // One message's header and body; a payload, if any, is still to be read.
  struct Received {
    MessageHeader header;
    std::string body;
  };
  absl::StatusOr<Received> ReadMessage();
  absl::Status WriteMessage(uint8_t type, uint64_t sequence, std::string_view body,
                            std::span<const std::byte> payload = {});

  // Ends every wait of this channel, now and later. Thread-safe.
  void Interrupt();

  bool secure() const { return ssl_ != nullptr; }
  // Names in the peer's certificate; empty without TLS.
  const std::vector<std::string>& names() const { return names_; }
  const std::string& peer() const { return peer_; }

 private:
  Channel(base::UniqueFd socket, std::string peer);
  absl::Status Handshake(const TlsFiles& tls, TlsSide side, const std::string& host,
                         absl::Duration timeout);
  absl::Status Wait(short events, base::MonotonicTime deadline);
  // Bytes moved, 0: wait first for what `events` says.
  absl::StatusOr<size_t> Transfer(std::byte* in, const std::byte* out, size_t length,
                                  short& events);
  absl::Status Lost(std::string_view why) const;
  absl::Status LostBy(int error, std::string_view operation) const;

  base::UniqueFd socket_;
  UniqueSsl ssl_;
  std::string peer_;
  std::vector<std::string> names_;
};

}  // namespace metal::transfer
