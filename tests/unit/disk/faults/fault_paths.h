// Every class of the fault table on its way from what a host shows to the status and out of it
// again: through the code of the sources, with nothing made up between them and the desk.
// Threading: constant data.
#pragma once

#include "agent/disk/faults/fault_table.h"
#include "tests/unit/disk/faults/fault_path_steps.h"

namespace metal::disk {
namespace fault_paths {

using Step = void (*)(WatchedNode&);

struct FaultPath {
  FaultClass fault_class;
  const char* by;
  Step raise;
  Step end;  // null: nothing tells of its end, it is over after the row's quiet
};

inline const FaultPath kFaultPaths[] = {
    {kMediaError, "the kernel's line",
     [](WatchedNode& node) {
       node.KernelSays(
           "critical medium error, dev nvme0n1, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 "
           "prio class 2");
     },
     nullptr},
    {kMediaError, "a probe's read", [](WatchedNode& node) { node.ProbeEnds(kRead, -ENODATA); },
     nullptr},
    {kMediaError, "the drive's own count",
     [](WatchedNode& node) {
       node.AskDrive();
       node.helper_.Smart(160, 5, 8);
       node.AskDrive();
     },
     nullptr},
    {kMediaError, "a line of the server's log with a probe",
     [](WatchedNode& node) {
       node.PostgresSays(
           "[9] me@db ERROR:  could not read block 17 in file \"base/5/2619\": Input/output error");
       node.ProbeEnds(kRead, -EIO);
     },
     nullptr},

    {kMediaError, "the drive's error log", [](WatchedNode& node) { DriveLogsError(node, 2, 0x81); },
     nullptr},
    {kMediaError, "the drive's count of reads that it could not correct",
     [](WatchedNode& node) { OcpGrows(node, 56, 5, 8); }, nullptr},

    {kWriteError, "the drive's error log", [](WatchedNode& node) { DriveLogsError(node, 2, 0x80); },
     nullptr},
    {kWriteError, "the kernel's line",
     [](WatchedNode& node) {
       node.KernelSays(
           "nvme0n1: Write(0x1) @ LBA 256, 8 blocks, Write Fault (sct 0x2 / sc 0x80) DNR ");
     },
     nullptr},
    {kWriteError, "a probe's write", [](WatchedNode& node) { node.ProbeEnds(kWrite, -EIO); },
     nullptr},
    {kWriteError, "a server that ended itself",
     [](WatchedNode& node) {
       ServerEndsItself(node,
                        "could not write to log file \"000000010000000000000001\" at offset 8192, "
                        "length 8192: Input/output error");
     },
     nullptr},

    {kFsyncError, "a server that ended itself",
     [](WatchedNode& node) {
       node.PostgresSays("[123] PANIC:  could not fsync file \"base/5/2619\": Input/output error");
       node.PostgresSays("[1] LOG:  checkpointer process (PID 123) was terminated by signal 6: A");
     },
     nullptr},
    {kFsyncError, "the kernel's line of a flush",
     [](WatchedNode& node) { node.KernelSays(kFlushError); }, nullptr},

    {kReadOnly, "SMART and sysfs",
     [](WatchedNode& node) {
       Warns<kMediaReadOnly>(node);
       node.Write(WatchedNode::kDisk, "ro", "1\n");
       node.LookAtSysfs();
     },
     [](WatchedNode& node) {
       WarnsNoMore(node);
       node.Write(WatchedNode::kDisk, "ro", "0\n");
       node.LookAtSysfs();
     }},
    {kReadOnly, "SMART and the kernel's line",
     [](WatchedNode& node) {
       Warns<kMediaReadOnly>(node);
       node.KernelSays(
           "nvme0n1: Write(0x1) @ LBA 256, 8 blocks, Namespace is Write Protected (sct 0x0 / sc "
           "0x20) DNR ");
     },
     [](WatchedNode& node) {
       WarnsNoMore(node);
       node.Pass(RowOf(kReadOnly).quiet);
     }},
    {kReadOnly, "the drive's error log and sysfs",
     [](WatchedNode& node) {
       DriveLogsError(node, 0, 0x20);
       node.Write(WatchedNode::kDisk, "ro", "1\n");
       node.LookAtSysfs();
     },
     [](WatchedNode& node) {
       node.Write(WatchedNode::kDisk, "ro", "0\n");
       node.LookAtSysfs();
       node.Pass(RowOf(kReadOnly).quiet);
     }},
    {kReadOnly, "SMART and a device event",
     [](WatchedNode& node) {
       Warns<kMediaReadOnly>(node);
       node.KernelTells("change", "nvme0/nvme0n1", "block", "DISK_RO=1");
     },
     [](WatchedNode& node) {
       node.KernelTells("change", "nvme0/nvme0n1", "block", "DISK_RO=0");
       WarnsNoMore(node);
     }},
    {kReadOnly, "the same, until the drive is plugged in anew, which tells of no such event",
     [](WatchedNode& node) {
       Warns<kMediaReadOnly>(node);
       node.KernelTells("change", "nvme0/nvme0n1", "block", "DISK_RO=1");
     },
     [](WatchedNode& node) {
       WarnsNoMore(node);
       node.Pass(RowOf(kReadOnly).quiet);
     }},

    {kSpareLow, "SMART", Warns<kSpareBelowThreshold>, WarnsNoMore},
    {kSpareLow, "an event of the drive",
     [](WatchedNode& node) { node.KernelTells("change", "nvme0", "nvme", "NVME_AEN=0x020201"); },
     nullptr},

    // It ends with the drive: another one, that is the right one, has most of its life before it.
    {kWearingOut, "SMART",
     [](WatchedNode& node) {
       node.helper_.Smart(5, 91, 1);
       node.AskDrive();
     },
     [](WatchedNode& node) {
       node.helper_.Smart(5, 3, 1);
       node.drive_.identity.serial = "METAL0002";
       node.drive_.noted = node.drive_.identity;
       node.AskDrive();
     }},

    {kUnreliable, "SMART: its capacitors failed", Warns<kVolatileMemoryBackupFailed>, WarnsNoMore},
    {kUnreliable, "a self-test that failed, until none is in its log",
     [](WatchedNode& node) {
       Put(node.helper_.controller_, 256, 0x10, 2);
       node.helper_.pages_[kSelfTestLogId] = LoadPage("self_test");
       node.AskDrive();
     },
     [](WatchedNode& node) {
       node.helper_.pages_[kSelfTestLogId] = Page(kSelfTestLogSize);
       node.AskDrive(absl::Minutes(10));
     }},

    {kUnreliable, "an event of the drive",
     [](WatchedNode& node) { node.KernelTells("change", "nvme0", "nvme", "NVME_AEN=0x020001"); },
     nullptr},
    {kUnreliable, "the charge of its capacitors",
     [](WatchedNode& node) { OcpGrows(node, 128, 4, 2); },
     [](WatchedNode& node) {
       Put(node.helper_.pages_[kOcpLogId], 128, 137, 2);
       node.AskDrive(absl::Minutes(1));
     }},

    {kOverheating, "an event of the drive",
     [](WatchedNode& node) { node.KernelTells("change", "nvme0", "nvme", "NVME_AEN=0x020101"); },
     nullptr},
    {kOverheating, "its persistent events",
     [](WatchedNode& node) {
       ReadOldEvents(node);
       DriveLogsEvent(node, kEventThermalExcursion, {5, 2});
     },
     nullptr},
    {kOverheating, "that it throttles itself", [](WatchedNode& node) { OcpGrows(node, 97, 1, 1); },
     [](WatchedNode& node) {
       Put(node.helper_.pages_[kOcpLogId], 97, 0, 1);
       node.AskDrive(absl::Minutes(1));
     }},
    {kOverheating, "SMART", Warns<kTemperatureOutOfRange>, WarnsNoMore},
    {kOverheating, "the time that it was hot, until that grows no more",
     [](WatchedNode& node) {
       node.AskDrive();
       node.helper_.Smart(192, 61, 4);
       node.AskDrive();
     },
     [](WatchedNode& node) { node.AskDrive(absl::Minutes(4)); }},

    {kControllerReset, "the kernel's lines of two resets",
     [](WatchedNode& node) {
       node.KernelSays(kTimeout);
       node.Pass(absl::Minutes(6));
       node.KernelSays(kTimeout);
     },
     nullptr},
    {kControllerReset, "the kernel's line and the drive's count",
     [](WatchedNode& node) {
       node.KernelSays(kTimeout);
       OcpGrows(node, 232, 6, 4);
     },
     nullptr},
    {kControllerReset, "two internal errors that the drive reports",
     [](WatchedNode& node) {
       node.KernelTells("change", "nvme0", "nvme", "NVME_AEN=0x010300");
       node.Pass(absl::Minutes(6));
       node.KernelTells("change", "nvme0", "nvme", "NVME_AEN=0x010400");
     },
     nullptr},
    {kControllerReset, "a controller that is not live, and its persistent events",
     [](WatchedNode& node) {
       ReadOldEvents(node);
       node.Write(WatchedNode::kFunction, "nvme/nvme0/state", "resetting\n");
       node.LookAtSysfs();
       DriveLogsEvent(node, kEventHardwareError, {kHardwareControllerFatal, 0, 0, 0});
     },
     [](WatchedNode& node) {
       node.Write(WatchedNode::kFunction, "nvme/nvme0/state", "live\n");
       node.LookAtSysfs();
       node.Pass(RowOf(kControllerReset).quiet);
     }},

    {kGone, "a device event and sysfs, until the same drive is back",
     [](WatchedNode& node) {
       node.KernelTells("remove", "nvme0/nvme0n1", "block");
       node.Pull();
       node.LookAtSysfs();
     },
     [](WatchedNode& node) {
       node.PlugIn();
       node.LookAtSysfs();
     }},
    {kGone, "a probe that reads nothing", [](WatchedNode& node) { node.ProbeEnds(kRead, 0); },
     ProbesWorkAgain},
    {kGone, "the kernel's line alone: in sysfs it never went",
     [](WatchedNode& node) {
       node.KernelSays("nvme nvme0: Removing after probe failure status: -19");
       node.LookAtSysfs();
     },
     nullptr},
    {kGone, "a server that ended itself",
     [](WatchedNode& node) {
       ServerEndsItself(node,
                        "could not open file \"pg_wal/000000010000000000000003\": No such "
                        "device");
     },
     nullptr},
    {kGone, "sysfs, until another drive is the node's",
     [](WatchedNode& node) {
       node.Pull();
       node.LookAtSysfs();
     },
     [](WatchedNode& node) { node.Own("METAL0002"); }},

    {kLinkDegraded, "a link without all its lanes",
     [](WatchedNode& node) {
       node.Write(WatchedNode::kFunction, "current_link_width", "2\n");
       node.LookAtSysfs();
     },
     [](WatchedNode& node) {
       node.Write(WatchedNode::kFunction, "current_link_width", "4\n");
       node.LookAtSysfs();
     }},
    {kLinkDegraded, "errors that the port counts",
     [](WatchedNode& node) {
       node.Write(WatchedNode::kFunction, "aer_dev_correctable", "TOTAL_ERR_COR 9\n");
       node.LookAtSysfs();
     },
     nullptr},
    {kLinkDegraded, "the kernel's line",
     [](WatchedNode& node) {
       node.KernelSays(
           "pcieport 0000:00:1c.0: AER: Corrected error message received from 0000:3b:00.0");
     },
     nullptr},

    {kLinkDegraded, "errors that the drive counts, until they grow no more",
     [](WatchedNode& node) { OcpGrows(node, 104, 1240, 8); },
     [](WatchedNode& node) { node.AskDrive(absl::Minutes(4)); }},
    {kLinkDegraded, "its persistent events",
     [](WatchedNode& node) {
       ReadOldEvents(node);
       DriveLogsEvent(node, kEventHardwareError, {kHardwarePcieLinkChanged, 0, 0, 0});
     },
     nullptr},

    {kSlow, "its own past and the shard's other members",
     [](WatchedNode& node) {
       node.Answer(4000, absl::Microseconds(100));
       node.Answer(120, absl::Microseconds(400));
     },
     [](WatchedNode& node) { node.Answer(1500, absl::Microseconds(100)); }},
    {kSlow, "its own past and late probes",
     [](WatchedNode& node) {
       node.Answer(4000, absl::Microseconds(100), /*with_peers=*/false);
       node.Answer(200, absl::Microseconds(400), /*with_peers=*/false);
       node.ProbesAreLate(3);
     },
     [](WatchedNode& node) {
       node.ProbesWork();
       node.Answer(1500, absl::Microseconds(100), /*with_peers=*/false);
     }},

    {kStalled, "a probe and requests in flight",
     [](WatchedNode& node) {
       node.Sample(kIdle, "0 0\n");
       for (int second = 1; second <= 4; ++second) {
         node.Sample(kIdle, "1 2\n");
         node.ProbeHangs(absl::Seconds(second));
       }
     },
     [](WatchedNode& node) { node.Sample(kMoved, "0 0\n"); }},
    {kStalled, "the same, until probes come back",
     [](WatchedNode& node) {
       node.Sample(kIdle, "0 0\n");
       for (int second = 1; second <= 4; ++second) node.Sample(kIdle, "1 2\n");
       node.ProbeHangs(absl::Seconds(4));
     },
     [](WatchedNode& node) { node.ProbesWork(); }},

    {kCorruption, "two blocks of probes that are not what was written",
     [](WatchedNode& node) {
       node.ProbeReads(kNewer, kNewer, /*flip_a_bit=*/true);
       node.Pass(absl::Seconds(20));
       node.ProbeReads(kNewer, kNewer, /*flip_a_bit=*/true);
     },
     nullptr},
    {kCorruption, "a file system and the server's count",
     [](WatchedNode& node) {
       node.PostgresCounts(4);
       node.KernelSays(
           "XFS (nvme0n1p1): Metadata CRC error detected at xfs_agf_read_verify+0x1c/0xb0");
       node.PostgresCounts(5);
     },
     nullptr},

    {kCorruption, "errors inside the drive, and the server's count",
     [](WatchedNode& node) {
       node.PostgresCounts(4);
       OcpGrows(node, 72, 9, 4);
       node.PostgresCounts(5);
     },
     nullptr},
    {kCorruption, "the drive's error log, and a line of the server's log",
     [](WatchedNode& node) {
       DriveLogsError(node, 2, 0x82);
       node.PostgresSays("[9] me@db ERROR:  invalid page in block 3 of relation base/5/2619");
     },
     nullptr},
    {kCorruption, "an event of the file system, and the server's count",
     [](WatchedNode& node) {
       node.PostgresCounts(4);
       node.FilesystemReports(EUCLEAN);
       node.PostgresCounts(5);
     },
     nullptr},

    {kLostWrite, "two blocks of probes that are older than they should be",
     [](WatchedNode& node) {
       node.ProbeReads(kNewer, kOlder);
       node.Pass(absl::Seconds(20));
       node.ProbeReads(kNewer, kOlder);
     },
     nullptr},

    {kTornWrites, "Identify Controller",
     [](WatchedNode& node) {
       Put(node.helper_.controller_, 525, 1, 1);
       node.AskDrive();
     },
     [](WatchedNode& node) {
       Put(node.helper_.controller_, 525, 0, 1);
       node.AskDrive(absl::Minutes(10));
     }},

    {kFilesystemShutdown, "the kernel's line and a probe",
     [](WatchedNode& node) {
       node.KernelSays("EXT4-fs (nvme0n1p1): Remounting filesystem read-only");
       node.ProbeEnds(kWrite, -EROFS);
     },
     ProbesWorkAgain},
    {kFilesystemShutdown, "the mount's options and the server's log",
     [](WatchedNode& node) {
       node.Mount("rw,emergency_ro");
       node.LookAtSysfs();
       node.PostgresSays(
           "[9] me@db ERROR:  could not write to file \"base/pgsql_tmp/pgsql_tmp9.0\": Read-only "
           "file system");
     },
     [](WatchedNode& node) {
       node.Mount("rw,inode64");
       node.LookAtSysfs();
     }},

    {kMetadataRetry, "the settings of XFS",
     [](WatchedNode& node) {
       for (const char* limit : {"max_retries", "retry_timeout_seconds"}) {
         node.Write(WatchedNode::kRetries, limit, "-1\n");
       }
       node.LookAtSysfs();
     },
     [](WatchedNode& node) {
       node.Write(WatchedNode::kRetries, "max_retries", "3\n");
       node.LookAtSysfs();
     }},

    {kFull, "the file system's room", [](WatchedNode& node) { node.Room(base::kGiB); },
     [](WatchedNode& node) { node.Room(500 * base::kGiB); }},
    {kFull, "a probe's write", [](WatchedNode& node) { node.ProbeEnds(kWrite, -ENOSPC); },
     ProbesWorkAgain},
    {kFull, "the kernel's line",
     [](WatchedNode& node) { node.KernelSays("XFS (nvme0n1p1): log I/O error -28"); }, nullptr},

    {kFull, "a line of the server's log with a probe",
     [](WatchedNode& node) {
       ServerEndsItself(node,
                        "could not write to file \"pg_wal/xlogtemp.123\": No space left on device");
       node.ProbeEnds(kWrite, -ENOSPC);
     },
     ProbesWorkAgain},

    {kWrongDevice, "sysfs, until the right one is back",
     [](WatchedNode& node) {
       node.PlugIn("METAL0002");
       node.LookAtSysfs();
     },
     [](WatchedNode& node) {
       node.PlugIn();
       node.LookAtSysfs();
     }},
    // The monitor notes the new drive when an operator acknowledges it, or the database was made
    // anew; sysfs is then looked at for that one.
    {kWrongDevice, "what was noted, until the new drive is the right one",
     [](WatchedNode& node) {
       node.PlugIn("METAL0002");
       node.LookAtSysfs();
       node.drive_.noted = node.drive_.identity;
       node.drive_.identity.serial = "METAL0002";
       node.AskDrive();
     },
     [](WatchedNode& node) {
       node.Own("METAL0002");
       node.drive_.noted = node.drive_.identity;
       node.AskDrive();
     }},

    {kFirmwareClock, "model, firmware and age",
     [](WatchedNode& node) {
       node.drive_.identity.model = "MO1600JVYPR";
       node.drive_.identity.firmware = "HPD6";
       node.helper_.Smart(128, 39'900, 8);
       node.AskDrive();
     },
     [](WatchedNode& node) {
       node.drive_.identity.firmware = "HPD7";
       node.AskDrive();
     }},

    {kThrottled, "Amazon's log, until it grows no more",
     [](WatchedNode& node) {
       Put(node.helper_.controller_, 0, kAmazonPciVendor, 2);
       node.helper_.pages_[kAwsLogId] = LoadPage("aws");
       node.AskDrive();
       Put(node.helper_.pages_[kAwsLogId], 56, 1'000'011, 8);
       node.AskDrive();
     },
     [](WatchedNode& node) { node.AskDrive(absl::Minutes(4)); }},
};

}  // namespace fault_paths

using fault_paths::FaultPath;
using fault_paths::kFaultPaths;

}  // namespace metal::disk
