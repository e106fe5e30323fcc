// The managed blocks of pg_hba.conf (at its top, so that the agent can always connect) and
// pg_ident.conf. A user's own lines are never changed. Threading: pure functions; InstallManagedHba
// blocks on the data disk.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace metal::pg {

struct HbaOptions {
  std::string superuser = "postgres";
  std::string os_user = "postgres";  // whom the agent runs as; may differ from the superuser
  // Networks ("10.0.0.0/8", "samenet") from which replication by password (SCRAM) is accepted.
  std::vector<std::string> replication_networks;
  // Role that may log in from them, also to the database "postgres" (pg_rewind). Empty: any role,
  // and replication only.
  std::string replication_user;
};

// A name as a token of pg_hba.conf / pg_ident.conf: double-quoted, quotes doubled.
std::string QuoteHbaToken(std::string_view token);

std::string ManagedHbaBlock(const HbaOptions& options);
std::string ManagedIdentBlock(const HbaOptions& options);

// `text` with `block` at its top in place of an older block; byte for byte the same when it is
// already there.
std::string WithManagedBlockOnTop(std::string_view text, std::string_view block);

// Writes both blocks. Idempotent, durable, keeps the files' modes; INVALID_ARGUMENT for a name or
// network with a newline.
absl::Status InstallManagedHba(const std::string& data_dir, const HbaOptions& options);

}  // namespace metal::pg
