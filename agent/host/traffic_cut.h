// Keeps clients away from a port of this host: new connections are refused by a table of nftables
// of our own, and those that are there are destroyed. For the privileged helper; needs
// CAP_NET_ADMIN. Source: nft(8), sock_diag(7), the kernel's INET_DIAG_DESTROY. Of the network
// namespace that the caller is in. Threading: any thread; calls block for as long as `nft` or the
// kernel needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace metal::host {

// "metal_5432": a table for each port, so that several servers of one host do not share one.
std::string CutTableName(int port);

// What makes the table in one transaction, whatever was there: a connection to the port is answered
// with a reset, so that a client which knows other hosts goes on to the next at once. What belongs
// to a connection that is open passes.
std::string CutRules(int port);

// UNIMPLEMENTED: no `nft` on this host, or a kernel without nftables. FAILED_PRECONDITION: nft
// refused, with its own words. Idempotent.
absl::Status RefuseConnections(int port);
// OK when they were not refused.
absl::Status AllowConnections(int port);

// What became of connections.
struct Destroyed {
  int count = 0;
  std::string first_error = {};  // of those that are left; empty when none is
};

// Each of `count` connections by `destroy`, whose NOT_FOUND says that it has ended by itself. One
// that fails keeps no other from its end. The first error, when none could be destroyed.
absl::StatusOr<Destroyed> DestroyEach(size_t count,
                                      const std::function<absl::Status(size_t)>& destroy);

// Destroys the TCP connections of the port's server: both ends get an error at once, what has not
// been sent yet is lost. `spared`: inodes of sockets (/proc/PID/fd) that are left alone. Listening
// sockets stay. The number of those destroyed. UNIMPLEMENTED: the kernel cannot. PERMISSION_DENIED.
absl::StatusOr<Destroyed> DestroyConnections(int port, const std::set<uint32_t>& spared);

// The inodes of the sockets that a process has open; empty when it is gone or may not be looked at.
std::set<uint32_t> SocketsOf(int pid);

}  // namespace metal::host
