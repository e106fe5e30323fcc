#include "agent/disk/faults/fault_table.h"

#include <array>

namespace metal::disk {
namespace {

using observe::Severity;
using enum Witness;

constexpr absl::Duration kDay = absl::Hours(24);
constexpr absl::Duration kWeek = absl::Hours(7 * 24);

// Source of the classes and of what looks like them: agent/docs/adr/2026-11-26-fault-table.md.
const std::array<FaultRow, kFaultClasses> kTable = {{
    {.fault_class = FaultClass::kMediaError,
     .title = "Media error",
     .severity = Severity::kError,
     .seen_by = {kProbe, kKernelLog, kSmartLog, kErrorLog, kVendorLog, kPostgresLog},
     .quiet = kDay,
     .reaction = Reaction::kDrain,
     .meaning = "The drive could not read a sector, also after its own correction. Whatever lies "
                "there is lost on this node. One such error makes another within weeks likely.",
     .evidence = "A direct read that ends with ENODATA or EIO, the kernel's \"critical medium "
                 "error\" with the sector, NVMe status 2h/81h, growth of media_errors in the SMART "
                 "log, \"could not read block\" in the server's log.",
     .guard = "Old errors do not count, only growth. The server's log by itself is a suspicion: "
              "whoever may log in can write such a line. One sector is not a dead drive: the role "
              "is moved in good order, nothing is fenced.",
     .hint = "Let the orchestrator move the primary away. Verify the page checksums of the node "
             "(metalctl backup verify, or pg_amcheck), then make it anew from another node. "
             "Replace the drive when a second error comes within a day."},
    {.fault_class = FaultClass::kWriteError,
     .title = "Write error",
     .severity = Severity::kCritical,
     .fatal = true,
     .seen_by = {kProbe, kKernelLog, kErrorLog, kPostgresLog},
     .quiet = kWeek,
     .reaction = Reaction::kDemote,
     .meaning = "The drive refused a write. What the kernel held in memory for it is gone, and "
                "PostgreSQL may have been told that it is safe.",
     .evidence = "A direct synchronous write that fails, the kernel's write errors (op 0x1), NVMe "
                 "status 2h/80h, writeback errors of the file system, \"could not write\" in the "
                 "server's log.",
     .guard = "Counters of file systems stay 0, and ENOSPC is no write error. One witness is "
              "enough: nobody else may ever see it.",
     .hint = "Fail over. Do not restart the server on this disk and do not repeat its fsync. "
             "Replace the drive and make the node anew."},
    {.fault_class = FaultClass::kFsyncError,
     .title = "fsync error",
     .severity = Severity::kCritical,
     .fatal = true,
     .seen_by = {kKernelLog, kPostgresLog},
     .quiet = kWeek,
     .reaction = Reaction::kDemote,
     .meaning = "A flush failed. The kernel marks the lost pages as clean and tells of the error "
                "once: a second fsync succeeds over data that is not there.",
     .evidence = "\"could not fsync file\" of the server, which ends itself for it; a flush that "
                 "failed, in the kernel's log.",
     .guard = "A file opened after the error sees none, so a check afterwards proves nothing.",
     .hint = "Fail over. Crash recovery on this disk may find WAL that was never written: make "
             "the node anew on another drive."},
    {.fault_class = FaultClass::kReadOnly,
     .title = "Drive is read-only",
     .severity = Severity::kCritical,
     .fatal = true,
     .seen_by = {kKernelLog, kUevent, kSysfs, kSmartLog, kErrorLog},
     .witnesses = 2,
     .quiet = kDay,
     .reaction = Reaction::kDemote,
     .meaning = "The drive has put itself into read-only mode, at the end of its life or after an "
                "internal failure. It can still be read.",
     .evidence = "Bit 3 of the SMART critical warning, the block device's ro flag, write-protect "
                 "statuses (SC 20h, SCT 1h/SC 82h).",
     .guard = "A write protection that the host has set does not raise the SMART bit. What only "
              "one of them says stays a suspicion until a write fails.",
     .hint = "Fail over; the node can still give its WAL to others. Replace the drive."},
    {.fault_class = FaultClass::kSpareLow,
     .title = "Spare blocks run out",
     .severity = Severity::kError,
     .seen_by = {kUevent, kSmartLog},
     .quiet = kDay,
     .reaction = Reaction::kDrain,
     .meaning = "The drive's reserve of blocks has fallen to its threshold: soon it can replace no "
                "more worn-out ones.",
     .evidence = "Bit 0 of the SMART critical warning.",
     .guard = "A spare of 0 % without the bit is a drive (or an emulated one) that does not report "
              "it.",
     .hint = "Plan the replacement within a day, and move the primary away before."},
    {.fault_class = FaultClass::kWearingOut,
     .title = "Drive is worn",
     .severity = Severity::kWarning,
     .seen_by = {kSmartLog},
     .reaction = Reaction::kObserve,
     .meaning = "The drive has used 90 % or more of the writes that its maker rates it for.",
     .evidence = "percentage_used of the SMART log.",
     .guard = "100 % is not a failure, and the value goes up to 255: it is a date, not an event.",
     .hint =
         "Order a replacement at 90 %, plan it at 100 %. Do not let all drives of a shard reach "
         "it in one week."},
    {.fault_class = FaultClass::kUnreliable,
     .title = "Drive is not reliable",
     .severity = Severity::kCritical,
     .fatal = true,
     .seen_by = {kUevent, kSmartLog, kErrorLog, kVendorLog},
     .quiet = kWeek,
     .reaction = Reaction::kDrain,
     .meaning = "The drive reports that its reliability is degraded, or that the capacitors failed "
                "which save confirmed writes when the power goes: an fsync no longer means that "
                "data is safe.",
     .evidence = "Bits 2 and 4 of the SMART critical warning, capacitor health in the OCP log, "
                 "internal errors in the error log.",
     .guard = "Entries of the error log that our own or other tools' commands caused (invalid "
              "field, invalid opcode) are left out.",
     .hint = "Move the primary away, then replace the drive. Until then do not count it as a "
             "place where commits are safe from a power cut."},
    {.fault_class = FaultClass::kOverheating,
     .title = "Drive is too hot",
     .severity = Severity::kWarning,
     .seen_by = {kUevent, kSmartLog, kErrorLog, kVendorLog},
     .quiet = absl::Hours(1),
     .reaction = Reaction::kObserve,
     .meaning = "The drive is above its warning temperature, or slows itself down to cool off.",
     .evidence = "Bit 1 of the SMART critical warning, growth of the time above the warning and "
                 "critical temperatures and of the time in thermal states 1 and 2.",
     .guard =
         "Short spells under a backup are normal, so it is a warning and moves nothing. Single "
         "sensors say little; the composite temperature counts.",
     .did = "Backups of the node and clones from it read more slowly while its logs say that "
            "it is hot, step by step.",
     .hint = "Look at fans and air flow. Drain "
             "the node when it throttles for more than 5 minutes in an hour."},
    {.fault_class = FaultClass::kControllerReset,
     .title = "Controller was reset",
     .severity = Severity::kError,
     .seen_by = {kKernelLog, kUevent, kSysfs, kErrorLog, kVendorLog},
     .witnesses = 2,
     .sightings = 2,
     .within = absl::Hours(1),
     .apart = absl::Minutes(5),
     .quiet = absl::Hours(1),
     .reaction = Reaction::kDrain,
     .meaning = "Commands did not come back in the kernel's time; it aborted them or reset the "
                "controller. I/O stood still meanwhile.",
     .evidence = "\"timeout, aborting\", \"timeout, reset controller\", \"controller is down; will "
                 "reset\", \"Abort status\" of the kernel; a controller state other than live.",
     .guard = "One reset may belong to a firmware activation. Drives with a broken power saving "
              "state do it when idle; the kernel says so.",
     .hint = "One: look at the kernel's lines and at the firmware's release notes. Two within an "
             "hour: move the primary away and replace the drive."},
    {.fault_class = FaultClass::kGone,
     .title = "Drive is gone",
     .severity = Severity::kCritical,
     .fatal = true,
     .seen_by = {kProbe, kKernelLog, kUevent, kSysfs, kPostgresLog},
     .quiet = kDay,
     .ends_at_once = true,
     .reaction = Reaction::kDemote,
     .meaning = "The device has left the bus. Cached pages can still be read and writes into the "
                "cache still succeed, so the server may not notice for long.",
     .evidence = "A probe that ends with ENODEV or with 0 bytes, the kernel's remove event, a size "
                 "of 0, the device's directory in sysfs; from then on any error of its I/O.",
     .guard =
         "A device that comes back under its name has to have the same serial number. A read of "
         "0 bytes from a probe file that another program has cut tells nothing.",
     .hint = "Fail over. Look at the slot, the cable and the power. Never let the node go on with "
             "the same data directory as primary: writes are missing."},
    {.fault_class = FaultClass::kLinkDegraded,
     .title = "PCIe link is degraded",
     .severity = Severity::kWarning,
     .seen_by = {kKernelLog, kSysfs, kErrorLog, kVendorLog},
     .quiet = absl::Hours(1),
     .reaction = Reaction::kObserve,
     .meaning = "The link to the drive has fewer lanes or less speed than both ends can do, or it "
                "corrects many errors.",
     .evidence = "current_link_width and current_link_speed below their maximum, growth of the AER "
                 "counters, PCIe counters of the OCP log, the kernel's AER lines.",
     .guard = "Some hosts lower the speed when idle. Virtual machines have no such files.",
     .hint = "Plan to reseat the drive. Fatal errors make the drive go away: see gone."},
    {.fault_class = FaultClass::kSlow,
     .title = "Drive is slow",
     .severity = Severity::kWarning,
     .seen_by = {kProbe, kSlowDetector, kPeers},
     .witnesses = 2,
     .reaction = Reaction::kDrain,
     .meaning = "Requests end, but much later than this drive's own curve of latency over load and "
                "the shard's other members allow. Drives that become slow often die later.",
     .evidence = "The probes' median and 99th percentile against the drive's own history and "
                 "against its peers; probes beyond their limit.",
     .guard = "Checkpoints, backups, garbage collection and heat look alike for minutes: the "
              "peers replay the same WAL, and what all have is no fault of the drive. Late probes "
              "alone, or the drive's own past alone, are a suspicion.",
     .hint = "Move the primary away. Look at the temperature, the link and who else uses the "
             "drive, before it is replaced. Where this is how it may be (other firmware, another "
             "kernel), acknowledge it: its normal is learned anew."},
    {.fault_class = FaultClass::kStalled,
     .title = "I/O stands still",
     .severity = Severity::kCritical,
     .fatal = true,
     .seen_by = {kProbe, kSysfs},
     .witnesses = 2,
     .quiet = absl::Minutes(2),
     .ends_at_once = true,
     .reaction = Reaction::kDemote,
     .meaning = "Requests do not come back. Every process that touches the disk hangs and cannot "
                "be killed; the kernel itself gives up only after 30 seconds and more.",
     .evidence = "A probe older than 3 s; requests in flight while the device completes none, or "
                 "so few that the last of them waits for more than 3 s.",
     .guard = "A machine that was stopped itself, a prober that gets no CPU: ages are judged by a "
              "clock that looks at itself. A reset under way is an outage all the same.",
     .hint = "Fail over: the node does not need to answer for it. Reboot the host or pull its "
             "power before the drive is used again."},
    {.fault_class = FaultClass::kCorruption,
     .title = "Corrupt data",
     .severity = Severity::kCritical,
     .fatal = true,
     .seen_by = {kProbe, kKernelLog, kErrorLog, kVendorLog, kFilesystem, kPostgresLog, kChecksums},
     .witnesses = 2,
     .sightings = 2,
     .within = kDay,
     .apart = absl::Seconds(10),
     .quiet = kWeek,
     .reaction = Reaction::kDrain,
     .meaning = "Bytes came back that are not what was written.",
     .evidence = "A probe block with a wrong checksum, growth of pg_stat_database."
                 "checksum_failures, \"invalid page\" in the server's log, a page that a backup "
                 "finds wrong twice.",
     .guard =
         "A page that is being written while it is read looks torn: it is read again and "
         "judged by its LSN. The server's log by itself is a suspicion: whoever may log in can "
         "write such a line.",
     .hint = "Compare with a replica, isolate the node, make it anew. Suspect memory too: look at "
             "the kernel's EDAC lines."},
    {.fault_class = FaultClass::kLostWrite,
     .title = "Lost or misdirected write",
     .severity = Severity::kCritical,
     .fatal = true,
     .seen_by = {kProbe},
     .witnesses = 2,
     .sightings = 2,
     .within = kDay,
     .quiet = kWeek,
     .reaction = Reaction::kDrain,
     .meaning = "The drive confirmed a write and later gave an older block, or another one's, for "
                "the same place.",
     .evidence = "Probe blocks are stamped with host, device, place and sequence, and read back "
                 "after a lap.",
     .guard = "A directory that was restored from a copy holds an old probe file; it is made "
              "anew when the agent begins to watch, and whenever another program has cut it.",
     .hint = "Condemn the drive. Whatever it confirmed may be missing: make the node anew."},
    {.fault_class = FaultClass::kTornWrites,
     .title = "Writes may tear",
     .severity = Severity::kInfo,
     .seen_by = {kInventory},
     .reaction = Reaction::kObserve,
     .meaning = "The drive has a volatile write cache, or does not promise to write a page of 8 "
                "KiB as a whole when the power goes.",
     .evidence = "VWC and AWUPF of Identify Controller, unless the OCP log tells of capacitors.",
     .guard = "A drive with a cache may have capacitors behind it: growth of unsafe_shutdowns "
              "without loss shows it.",
     .did = "It lets nobody switch full_page_writes off (metalctl pg config set) on such a drive.",
     .hint = "Leave full_page_writes on. It is no fault as long as it is."},
    {.fault_class = FaultClass::kFilesystemShutdown,
     .title = "File system is shut down",
     .severity = Severity::kCritical,
     .fatal = true,
     .of_filesystem = true,
     .seen_by = {kProbe, kKernelLog, kFilesystem, kPostgresLog},
     .witnesses = 2,
     .quiet = kDay,
     .ends_at_once = true,
     .reaction = Reaction::kDemote,
     .meaning = "The file system has stopped itself after an error, or takes no more writes. "
                "/proc/mounts may still say rw.",
     .evidence =
         "EROFS of a probe's write, EIO of a probe when another witness tells of the "
         "shutdown (a write that fails is a write error all the same), \"Filesystem has been shut "
         "down\", \"Remounting "
         "filesystem read-only\", \"Aborting journal\", file system error events.",
     .guard = "That the mount table still says rw proves nothing; only what it says of a shutdown "
              "counts.",
     .hint = "Fail over. Unmount, look at the drive first, then repair or make the node anew."},
    {.fault_class = FaultClass::kMetadataRetry,
     .title = "File system would retry for ever",
     .severity = Severity::kInfo,
     .of_filesystem = true,
     .seen_by = {kFilesystem},
     .reaction = Reaction::kObserve,
     .meaning = "XFS would try a failed write of its metadata again without end instead of "
                "shutting down: a dead drive then hangs everything that uses it.",
     .evidence = "/sys/fs/xfs/<device>/error/metadata/*/max_retries is -1.",
     .guard = "ENODEV is never retried. ext4 has no such setting.",
     .hint = "The agent sets it where it may; otherwise write 3 into EIO/max_retries and "
             "default/max_retries at mount time."},
    {.fault_class = FaultClass::kFull,
     .title = "Disk is full",
     .severity = Severity::kCritical,
     .of_filesystem = true,
     .seen_by = {kProbe, kKernelLog, kFilesystem, kPostgresLog},
     .quiet = absl::Seconds(30),
     .reaction = Reaction::kObserve,
     .meaning = "Hardly any space or inodes are left, or none. The server ends itself when it "
                "cannot write WAL; before that its node makes new transactions read-only.",
     .evidence = "statvfs: less free than disk.read_only_at leaves; a probe's write that ends with "
                 "ENOSPC; \"No space left on device\" in the server's log.",
     .guard = "A quota gives the same error with space left. The reserve file counts as used.",
     .did =
         "A primary's new transactions are read-only (disk.read_only_at). Near the end, and when "
         "the server ended for want of space, it was given the reserve (disk.reserve) and "
         "started again. Both are undone once there is room.",
     .hint =
         "pg_replication_slots shows who holds WAL back, metalctl status whether archiving fails. "
         "Never delete files in pg_wal. Writes are let in again by themselves once half as "
         "much more is free; until then a session that has to delete says SET "
         "default_transaction_read_only = off."},
    {.fault_class = FaultClass::kWrongDevice,
     .title = "Another drive than before",
     .severity = Severity::kError,
     .seen_by = {kSysfs, kInventory},
     .reaction = Reaction::kObserve,
     .meaning = "Under the name of a disk of this node there is another drive: a wrong slot, an "
                "exchanged one, one of another size.",
     .evidence = "Serial number, world-wide name, model and size against what was noted.",
     .guard = "A planned exchange looks the same: the fault ends when the old drive is back, when "
              "the database was made anew there (clone, restore), or when an operator acknowledges "
              "it. What was noted outlives a restart of the agent.",
     .did = "It does not start a server on it; one that runs is left alone.",
     .hint = "Compare with the inventory. metalctl disk "
             "acknowledge wrong_device takes the new drive for the right one."},
    {.fault_class = FaultClass::kFirmwareClock,
     .title = "Firmware that fails at an age",
     .severity = Severity::kError,
     .seen_by = {kInventory},
     .reaction = Reaction::kDrain,
     .meaning = "The drive's firmware is known to stop at a number of power-on hours, and the "
                "drive comes near it. Drives of one delivery stop on the same day.",
     .evidence = "Model and firmware against a list of known ones, power_on_hours.",
     .guard = "A newer firmware of the same model is not on the list.",
     .hint = "Update the firmware or replace the drive before the date; one member of a shard "
             "at a time."},
    {.fault_class = FaultClass::kThrottled,
     .title = "Volume is throttled",
     .severity = Severity::kWarning,
     .seen_by = {kVendorLog},
     .quiet = absl::Minutes(10),
     .reaction = Reaction::kObserve,
     .meaning = "The cloud holds the volume at its limit of requests or of bytes per second.",
     .evidence = "The counters of Amazon's log D0h grow.",
     .guard = "It is no fault of the drive, and explains slowness that would look like one.",
     .hint = "Choose a larger instance or volume, or lower the rate of backups."},
}};

}  // namespace

std::string_view ReactionName(Reaction reaction) {
  constexpr std::string_view kNames[] = {"observe", "drain", "demote"};
  return kNames[static_cast<size_t>(reaction)];
}

Reaction ParseReaction(std::string_view name) {
  for (const Reaction each : {Reaction::kDrain, Reaction::kDemote}) {
    if (ReactionName(each) == name) return each;
  }
  return Reaction::kObserve;
}

std::span<const FaultRow> FaultTable() { return kTable; }

const FaultRow& RowOf(FaultClass fault_class) {
  return kTable.at(static_cast<size_t>(fault_class));
}

}  // namespace metal::disk
