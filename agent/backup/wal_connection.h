// One accepted connection of the WAL socket: who is there, the request with its descriptor, the
// response. Threading: one thread at a time. Every call returns by its deadline; none touches a
// disk.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/backup/wal_protocol.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"

namespace metal::backup {

class WalConnection {
 public:
  // `socket` is a connected stream socket; `stopping` is asked about ten times a second.
  WalConnection(base::UniqueFd socket, base::Clock& clock, std::function<bool()> stopping)
      : socket_(std::move(socket)), clock_(clock), stopping_(std::move(stopping)) {}

  // Effective user of the process that connected.
  absl::StatusOr<uid_t> PeerUser() const;

  struct Received {
    WalRequest request;
    base::UniqueFd file;                 // always valid
    std::vector<base::UniqueFd> spares;  // at most kMaxWalSpares; none of a push
  };
  // INVALID_ARGUMENT: not a request with the right number of descriptors; DEADLINE_EXCEEDED;
  // CANCELLED when stopping; UNAVAILABLE: the client went away.
  absl::StatusOr<Received> Receive(absl::Duration timeout);
  // `file` goes with the message unless it is negative.
  absl::Status Send(const WalResponse& response, int file, absl::Duration timeout);

 private:
  // Waits until the socket is ready for `events`.
  absl::Status WaitReady(short events, base::MonotonicTime deadline) const;
  // Appends what has arrived to `bytes`, at most `want` bytes; keeps the descriptors that come with
  // it.
  absl::Status ReceiveSome(size_t want, std::string& bytes,
                           std::vector<base::UniqueFd>& files) const;

  base::UniqueFd socket_;
  base::Clock& clock_;
  std::function<bool()> stopping_;
};

}  // namespace metal::backup
