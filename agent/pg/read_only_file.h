// metal.readonly.conf: while this file is in the data directory, new transactions are read-only
// (default_transaction_read_only = on), unless their session, database or role says otherwise. A
// file of its own, read after metal.conf: making and removing it changes no setting of anybody, and
// no copy of the directory that the agent makes takes it along. In force after a reload.
// Threading: blocks on the data disk.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace metal::pg {

inline constexpr const char* kReadOnlyFile = "metal.readonly.conf";

absl::StatusOr<bool> HasReadOnlyFile(const std::string& data_dir);
// Durable and idempotent. Also adds the line to postgresql.conf that reads it, when it is missing.
absl::Status WriteReadOnlyFile(const std::string& data_dir);
absl::Status RemoveReadOnlyFile(const std::string& data_dir);

}  // namespace metal::pg
