#include "agent/backup/control_copy.h"

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {

absl::StatusOr<ControlCopy> CopyControl(const std::string& data_directory, base::Clock& clock) {
  const std::string path = base::JoinPath(data_directory, kControlPath);
  std::string previous;
  while (true) {
    METAL_ASSIGN_OR_RETURN(std::string bytes, base::ReadFile(path, 64 << 10));
    auto control = pg::DecodeControlFile(std::as_bytes(std::span(bytes)));
    if (control.ok()) return ControlCopy{std::move(bytes), *std::move(control)};
    if (!absl::IsDataLoss(control.status()) || bytes == previous) {
      return base::Annotate(control.status(), path);
    }
    previous = std::move(bytes);
    clock.Sleep(absl::Milliseconds(50));
  }
}

}  // namespace metal::backup
