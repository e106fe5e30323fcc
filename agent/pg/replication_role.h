// The database role that standbys and pg_rewind log in with, and the file with its password for
// libpq. Threading: EnsureReplicationRole as the session; the rest blocks on the disk.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/pg/session.h"

namespace metal::pg {

// The first line of the file. INVALID_ARGUMENT when it is empty.
absl::StatusOr<std::string> ReadPasswordFile(const std::string& path);

// There is such a role, and it may log in for replication; its password is not looked at.
absl::StatusOr<bool> HasReplicationRole(SqlSession& session, const std::string& role);

// Makes the role (LOGIN REPLICATION, a SCRAM verifier of the password) or sets its password anew,
// and lets it call what pg_rewind reads files with. On a primary, by a superuser.
// Waits for no standby, which may need it to connect. FAILED_PRECONDITION when a role of this name
// is a superuser: it is somebody else's.
absl::Status EnsureReplicationRole(SqlSession& session, const std::string& role,
                                   const std::string& password);

// A passfile that fits every host, port and database; mode 0600. Durable; idempotent.
absl::Status WritePassfile(const std::string& path, const std::string& role,
                           const std::string& password);

}  // namespace metal::pg
