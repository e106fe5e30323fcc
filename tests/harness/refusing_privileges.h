// A privileged helper that reads nothing, for tests that need one or two of its calls.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/disk/privileged.h"

namespace metal::testing {

class RefusingPrivileges : public disk::PrivilegedHelper {
 public:
  absl::StatusOr<std::vector<std::byte>> ReadNvmeLog(const std::string&,
                                                     const disk::NvmeLogRequest&,
                                                     absl::Duration) override {
    return absl::UnimplementedError("no");
  }
  absl::StatusOr<std::vector<std::byte>> NvmeIdentify(const std::string&, absl::Duration) override {
    return absl::UnimplementedError("no");
  }
  absl::StatusOr<std::vector<std::byte>> NvmeIdentifyNamespace(const std::string&, uint32_t,
                                                               absl::Duration) override {
    return absl::UnimplementedError("no");
  }
  absl::Status MoveToSystemdScope(pid_t, int, absl::Duration) override { return absl::OkStatus(); }
};

}  // namespace metal::testing
