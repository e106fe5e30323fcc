// Who listens on a TCP port of this machine: to say it before PostgreSQL fails on it.
// Source: proc(5), /proc/net/tcp and tcp6. Threading: reads procfs only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace metal::pg {

struct TcpListener {
  std::string address;  // "127.0.0.1", "0.0.0.0", "::1", "::"
  int port = 0;
  uint64_t inode = 0;  // of the socket
};
// Listening sockets in the text of /proc/net/tcp or tcp6; other states and broken lines are
// skipped. Pure.
std::vector<TcpListener> ParseProcNetTcp(std::string_view text);

// Whether binding `listen_addresses` ("*", "localhost, 10.0.0.1", "") would meet a listener on
// `address`. Host names other than localhost are not resolved and do not overlap. Pure.
bool ListenAddressesOverlap(std::string_view listen_addresses, std::string_view address);

struct PortOwner {
  std::string address;
  pid_t pid = 0;        // 0: its process may not be seen by us
  std::string command;  // command line
};
std::optional<PortOwner> FindPortOwner(int port, std::string_view listen_addresses);

// FAILED_PRECONDITION (PORT_IN_USE; metadata port, pid, command) when PostgreSQL could not listen
// on the port or on the unix socket in `socket_dir`, which another live process holds; also when
// `socket_dir` is missing or not writable.
absl::Status CheckPortFree(int port, std::string_view listen_addresses,
                           const std::string& socket_dir);

}  // namespace metal::pg
