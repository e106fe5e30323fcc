// "host:port" as people write it. Threading: pure function.
#pragma once

#include <string>

namespace metal::ctl {

// "10.0.0.1:5432", "[::1]:5432", "/run/postgresql:5432" (the directory of a unix socket). False
// when it is none; so is an IPv6 address without brackets, for its last part could be the port.
bool ParseAddress(const std::string& text, std::string* host, int* port);

}  // namespace metal::ctl
