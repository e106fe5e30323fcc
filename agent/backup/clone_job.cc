#include "agent/backup/clone_job.h"

#include <sys/stat.h>

#include <cerrno>

#include "agent/base/status.h"

namespace metal::backup {

absl::Status CloneDamage(const std::string& what) {
  return base::Error(absl::StatusCode::kDataLoss, "clone: {}. HINT: clone again", what);
}

absl::Status MakeParents(int directory, const std::string& path) {
  for (size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (mkdirat(directory, parent.c_str(), 0700) != 0 && errno != EEXIST) {
      return base::ErrnoStatus(errno, "create directory", parent);
    }
  }
  return absl::OkStatus();
}

}  // namespace metal::backup
