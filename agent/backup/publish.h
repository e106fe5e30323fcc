// The last step of a backup: its manifest appears under its final name, and from that moment on the
// backup exists. Threading: blocks on the repository's disk.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "agent/backup/manifest.h"

namespace metal::backup {

// Writes `header` beside its place in `directory`, makes it durable, renames it and syncs the
// directory. After an error the manifest may be there, not yet durable: the caller removes it
// before anything that it names.
absl::Status PublishManifest(const BackupHeader& header, const std::string& directory);

}  // namespace metal::backup
