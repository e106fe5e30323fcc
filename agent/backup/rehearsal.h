// A restore rehearsal: restores a backup into a scratch directory, boots PostgreSQL on it until it
// is consistent and open, runs pg_amcheck on every database (on 13, which has none, bt_index_check
// on every B-tree), stops it and removes everything. The server listens on a private unix socket
// only, archives nothing and answers to nobody but this process's user. Threading: one thread.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "agent/backup/context.h"
#include "agent/backup/manifest.h"

namespace metal::backup {

// `scratch` is the parent of the directory that is made and removed. Answers a sentence about what
// was proven. FAILED_PRECONDITION: programs of another version; INTERNAL with the server's or
// pg_amcheck's own words otherwise.
absl::StatusOr<std::string> Rehearse(const BackupHeader& header, const std::string& scratch,
                                     const OperationContext& context);

}  // namespace metal::backup
