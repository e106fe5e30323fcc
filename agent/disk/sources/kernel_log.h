// The kernel's log as a source: what /dev/kmsg says of this node's disks.
// KernelLogJudge is pure: records in, evidence and events out. KernelLog reads the device.
// Events: "disk.kernel_line" (subject the disk; attributes class, name, sector, nvme_status, or
// left_out), at most five a minute of one disk and class; "disk.kernel_lines_lost". Lines beyond
// the five are handed over for the flight recorder, up to 2000 different ones a minute: more than
// the kernel itself lets through of its drivers.
// Only what the kernel itself said counts: records of other facilities are whoever's who may write
// to /dev/kmsg.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/kernel_record.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/sources/disk_names.h"
#include "agent/disk/sources/kernel_line.h"
#include "agent/disk/sources/line_limiter.h"
#include "agent/disk/sources/line_repeats.h"
#include "agent/observe/event_log.h"

namespace metal::disk {

// What a source hands over at once.
struct Findings {
  std::vector<Evidence> evidence;
  std::vector<observe::Event> events;
  std::vector<KernelLine> lines;  // that no event tells
};

// Threading: not thread-safe.
class KernelLogJudge {
 public:
  struct Now {
    absl::Time time;
    base::MonotonicTime monotonic;
  };

  // Evidence for "controller_reset" is given once a minute for a disk, whatever the number of
  // lines: one reset makes many. Lines that continue another are read together with it. A plain
  // "I/O error" of a read shortly after the kernel reset the drive or lost it, or told its NVMe
  // status, is counted as that.
  void OnRecord(const base::KernelRecord& record, const DiskNames& names, Now now, Findings& out);
  // Tells what was left out of the windows that have ended, and how often lines were repeated.
  void Tick(Now now, Findings& out);
  std::optional<base::MonotonicTime> NextTick() const;

 private:
  struct Cause {
    FaultClass fault_class{};
    std::optional<NvmeStatus> nvme_status;
    std::optional<uint64_t> sector;
    base::MonotonicTime seen;
  };
  bool OnLine(std::string_view line, const base::KernelRecord& record, const DiskNames& names,
              Now now, Findings& out);
  void Explain(const std::string& disk, KernelFinding& finding, base::MonotonicTime now);
  bool IsOfTheSameReset(const Evidence& evidence, base::MonotonicTime now);
  void Tell(const Evidence& evidence, const KernelFinding& finding, Now now, Findings& out);

  static constexpr int kEventsOfOneKind = 5;
  static constexpr size_t kDifferentLines = 2000;
  LineLimiter limiter_{kEventsOfOneKind, absl::Minutes(1)};
  LineRepeats untold_{kDifferentLines, absl::Minutes(1)};
  std::map<std::string, Cause> causes_;                // by disk: the last one told
  std::map<std::string, base::MonotonicTime> resets_;  // by disk: when the last one was told
  std::string last_line_;                              // what a continuation continues
  bool last_matched_ = false;
};

// Reads one record; as read(2).
using ReadRecord = std::function<ssize_t(int fd, std::span<char> buffer)>;

// Threading: not thread-safe.
class KernelLog {
 public:
  // `device` must be non-blocking. `read` is a seam for tests; empty: read(2).
  explicit KernelLog(base::UniqueFd device, ReadRecord read = {});

  int fd() const { return device_.get(); }
  // Reads all there is and judges it. Records that the kernel overwrote before they were read are
  // told as lost. False: the device is of no more use.
  bool Drain(const DiskNames& names, base::Clock& clock, Findings& out);
  KernelLogJudge& judge() { return judge_; }
  // For tests, which cannot speak as the kernel.
  void TrustAllFacilities() { trust_all_ = true; }

 private:
  void OnText(std::string_view text, const DiskNames& names, base::Clock& clock, Findings& out);

  base::UniqueFd device_;
  ReadRecord read_;
  KernelLogJudge judge_;
  std::optional<uint64_t> last_sequence_;
  bool trust_all_ = false;
};

// /dev/kmsg, positioned after what it holds at present. Where the kernel restricts its log
// (kernel.dmesg_restrict = 1, Debian's default) it needs CAP_SYSLOG to open, not to read: open it
// before privileges are dropped. PERMISSION_DENIED, NOT_FOUND.
absl::StatusOr<base::UniqueFd> OpenKernelLog(const std::string& path = "/dev/kmsg");

}  // namespace metal::disk
