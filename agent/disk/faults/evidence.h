// What a source saw that speaks for a fault of a disk. Sources (probes, kernel log, drive logs,
// sysfs, file systems, PostgreSQL, the shard's other members) make these; nothing but the fault
// table weighs them. Threading: plain values.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace metal::disk {

// Classes of faults of a local drive, one for each row of the fault table. Names are the
// `fault_class` of the status and the file names of agent/docs/runbooks.
enum class FaultClass : uint8_t {
  kMediaError,       // "media_error": a read that the drive could not correct
  kWriteError,       // "write_error"
  kFsyncError,       // "fsync_error": the kernel or PostgreSQL lost a write
  kReadOnly,         // "read_only": the drive takes no more writes
  kSpareLow,         // "spare_low"
  kWearingOut,       // "wearing_out"
  kUnreliable,       // "unreliable": degraded, or its capacitors no longer save what it confirmed
  kOverheating,      // "overheating"
  kControllerReset,  // "controller_reset": commands timed out or were aborted, a reset
  kGone,             // "gone"
  kLinkDegraded,     // "link_degraded": PCIe width or speed below what both ends can do, errors
  kSlow,             // "slow"
  kStalled,          // "stalled"
  kCorruption,       // "corruption": bytes that are not what was written
  kLostWrite,        // "lost_write": an old or another block where a confirmed write should be
  kTornWrites,       // "torn_writes": a volatile cache, or no atomic write of a page
  kFilesystemShutdown,  // "filesystem_shutdown": shut down, or remounted read-only
  kMetadataRetry,       // "metadata_retry": the file system would retry a failed write for ever
  kFull,                // "full": of bytes or of inodes
  kWrongDevice,         // "wrong_device": not the drive that was here before
  kFirmwareClock,       // "firmware_clock": firmware known to fail at an age
  kThrottled            // "throttled": the cloud's limit of the volume
};
inline constexpr size_t kFaultClasses = 22;
std::string_view FaultClassName(FaultClass fault_class);

// Who saw it.
enum class Witness : uint8_t {
  kProbe,         // our own reads and writes
  kKernelLog,     // /dev/kmsg
  kUevent,        // the kernel's device events
  kSysfs,         // state, size, link, AER counters, I/O in flight
  kSmartLog,      // NVMe log 02h
  kErrorLog,      // NVMe log 01h, persistent events 0Dh, self-tests 06h
  kVendorLog,     // OCP C0h, AWS D0h
  kFilesystem,    // file system events, statvfs, settings
  kPostgresLog,   // what the server logged
  kChecksums,     // page checksums: the server's, a backup's
  kSlowDetector,  // the drive against its own past
  kPeers,         // the drive against the shard's other members
  kInventory      // identity, firmware, cache: what the drive says it is
};
inline constexpr size_t kWitnesses = 13;
std::string_view WitnessName(Witness witness);  // "probe", "kernel_log", …

class WitnessSet {
 public:
  constexpr WitnessSet() = default;
  constexpr WitnessSet(std::initializer_list<Witness> witnesses) {
    for (const Witness each : witnesses) bits_ |= Bit(each);
  }
  constexpr bool contains(Witness witness) const { return (bits_ & Bit(witness)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }

 private:
  static constexpr uint32_t Bit(Witness witness) { return 1u << static_cast<uint32_t>(witness); }
  uint32_t bits_ = 0;
};

// From whom a witness has what it says; two of one source are no two witnesses.
enum class EvidenceSource : uint8_t { kProbes, kKernel, kDrive, kPostgres, kDetector, kPeers };
EvidenceSource SourceOf(Witness witness);

// An NVMe command's status: type and code as the specification numbers them.
struct NvmeStatus {
  uint8_t type = 0;  // SCT, 0 to 7
  uint8_t code = 0;  // SC
};

// How a probe ended of which a witness speaks.
enum class ProbeResult : uint8_t {
  kUnanswered,  // "unanswered": it is outstanding
  kLate,        // "late"
  kFailed,      // "failed": with an errno
  kShort,       // "short": fewer bytes than asked for; none where the device is gone
  kOtherBytes,  // "other_bytes": not what was written, nor what was there before
  kOldBytes     // "old_bytes": what was there before a write that was confirmed, or another block's
};
inline constexpr size_t kProbeResults = 6;
std::string_view ProbeResultName(ProbeResult result);

// One observation. `device` is the kernel's name of the disk ("nvme0n1") and is never empty for a
// source that knows it; a source that knows only a directory gives its role instead.
struct Evidence {
  FaultClass fault_class = FaultClass::kStalled;
  Witness witness = Witness::kProbe;
  // True: the witness sees the fault's end, and its former evidence counts no more.
  bool clears = false;
  // True: the witness says it no more, and does not see the end either (it sees something else).
  bool retracts = false;
  // True: whoever may log in to the server can make the witness say so. It never confirms a fault
  // by itself, however often it is said.
  bool hearsay = false;
  std::string device;
  std::string role;  // "data", "wal", "tablespace:16385", "repository"; empty: all of the disk's
  std::string text;  // one line for people: what was seen, with numbers and units
  // What it was taken from, where there is such a thing.
  std::optional<ProbeResult> probe_result;
  std::optional<absl::Duration> outstanding;  // of a probe that is not answered, so far
  std::optional<int> error_number;            // errno
  std::optional<NvmeStatus> nvme_status;
  std::optional<uint64_t> sector;  // 512-byte sector of the disk
  std::string kernel_line;         // as the kernel wrote it
  std::optional<int64_t> delta;    // growth of a counter since it was last looked at
  absl::Time time;
};

}  // namespace metal::disk
