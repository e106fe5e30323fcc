// A SCRAM-SHA-256 verifier, so that a password never travels to the server as it is (logs,
// pg_stat_activity). Source: RFC 5802, RFC 7677; PostgreSQL src/common/scram-common.c
// (scram_build_secret). Threading: pure function but for the random salt.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace metal::pg {

// "SCRAM-SHA-256$4096:<salt>$<StoredKey>:<ServerKey>". INVALID_ARGUMENT for an empty password and
// for one with other characters than printable ASCII: those would need SASLprep.
absl::StatusOr<std::string> ScramVerifier(std::string_view password);

// With a given salt, of 16 bytes; for tests against what a server makes.
absl::StatusOr<std::string> ScramVerifier(std::string_view password, std::string_view salt,
                                          int iterations);

}  // namespace metal::pg
