// What a configuration file and the files that it includes set, as PostgreSQL reads them: include,
// include_if_exists and include_dir, relative to the file that says so, later lines win. Source:
// PostgreSQL src/backend/utils/misc/guc-file.l. Threading: blocks on the disk.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "agent/pg/settings.h"

namespace metal::pg {

// Adds to `settings`, over what is there. An error is one with which PostgreSQL does not start
// either: a file that cannot be read, INVALID_ARGUMENT for a line that is none, FAILED_PRECONDITION
// when files include each other more than 10 deep. `settings` then holds what came before it.
absl::Status ReadSettingFiles(const std::string& path, SettingMap& settings);

}  // namespace metal::pg
