// What a copied data directory must not take over from its source: whom it follows, until when it
// recovers, and its role. Threading: blocks on the data disk. Not synced: the syncfs that follows
// does it.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace metal::backup {

// Replaces a file of the copy, mode 0600.
absl::Status WriteCloneFile(const std::string& directory, std::string_view name,
                            std::string_view text);

// Takes the settings of replication and recovery out of postgresql.auto.conf, which is read after
// every other file, and takes back there the recovery targets of those other files; removes
// recovery.signal and writes standby.signal.
absl::Status ForgetSourcesRole(const std::string& directory);

}  // namespace metal::backup
