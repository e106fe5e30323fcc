// LogReader: asks one drive for its logs through the privileged helper, and decodes them.
// Threading: one thread. A call blocks until the drive answers or the reader's time is used up.
// Errors: those of PrivilegedHelper; INVALID_ARGUMENT when the drive sent something that is not the
// log; DEADLINE_EXCEEDED also when no time was left to ask.
#pragma once

#include <bitset>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/nvme/drive_logs.h"
#include "agent/disk/privileged.h"

namespace metal::disk {

class LogReader {
 public:
  // `time` is for all calls together. The helper and the clock outlive the reader.
  LogReader(PrivilegedHelper& helper, base::Clock& clock, std::string controller,
            absl::Duration time)
      : helper_(helper),
        clock_(clock),
        controller_(std::move(controller)),
        deadline_(clock.Monotonic() + time) {}

  absl::StatusOr<SmartLog> ReadSmart();
  absl::StatusOr<IdentifyController> ReadController();
  absl::StatusOr<IdentifyNamespace> ReadNamespace(uint32_t name_space);
  absl::StatusOr<std::bitset<256>> ReadSupportedLogs();
  // `entries` is at most what the controller says that it has.
  absl::StatusOr<std::vector<ErrorEntry>> ReadErrors(int entries);
  absl::StatusOr<SelfTestLog> ReadSelfTests();
  // 64 KiB of the log at most, the newest events; fewer when the time is used up.
  absl::StatusOr<PersistentEventLog> ReadPersistentEvents();
  absl::StatusOr<OcpLog> ReadOcp();
  absl::StatusOr<AwsLog> ReadAws(uint32_t name_space);

 private:
  absl::Duration TimeLeft() const { return deadline_ - clock_.Monotonic(); }
  absl::StatusOr<std::vector<std::byte>> Read(const NvmeLogRequest& request);
  absl::StatusOr<std::vector<std::byte>> OpenPersistentEvents();
  void ReleasePersistentEvents();

  PrivilegedHelper& helper_;
  base::Clock& clock_;
  const std::string controller_;
  const base::MonotonicTime deadline_;
};

}  // namespace metal::disk
