// Reads pg_control of a running server, which may be writing it at the same moment. Threading:
// blocks on the data disk.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/base/clock.h"
#include "agent/pg/control_file.h"

namespace metal::backup {

inline constexpr std::string_view kControlPath = "global/pg_control";

struct ControlCopy {
  std::string bytes;  // as they lie in the file
  pg::ControlFile control;
};

// Reads until the file's CRC matches. DATA_LOSS when the same wrong bytes come twice: that is no
// torn read.
absl::StatusOr<ControlCopy> CopyControl(const std::string& data_directory, base::Clock& clock);

}  // namespace metal::backup
