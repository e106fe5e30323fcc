#include "agent/disk/sources/kernel_line.h"

#include <cerrno>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::disk {
namespace {

using enum FaultClass;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Optional;

struct Case {
  const char* line;
  const char* name;
  std::optional<FaultClass> fault_class;
  std::optional<int> error_number{};
  std::optional<uint64_t> sector{};
  std::optional<uint64_t> logical_block{};
  int type = -1, code = -1;  // NVMe status
};

// Lines as kernels from 5.10 to 6.18 write them.
const Case kCases[] = {
    // The block layer.
    {"critical medium error, dev nvme0n1, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio "
     "class 2",
     "nvme0n1", kMediaError, ENODATA, 2048},
    {"critical medium error, dev nvme0n1, sector 4096 op 0x1:(WRITE) flags 0x8800 phys_seg 1 prio "
     "class 2",
     "nvme0n1", kWriteError, ENODATA, 4096},
    {"blk_update_request: critical medium error, dev sda, sector 12345 op 0x0:(READ) flags 0x80700 "
     "phys_seg 5 prio class 0",
     "sda", kMediaError, ENODATA, 12345},
    {"blk_update_request: I/O error, dev nvme0n1, sector 32776 op 0x1:(WRITE) flags 0x3000 "
     "phys_seg 6 prio class 0",
     "nvme0n1", kWriteError, EIO, 32776},
    {"I/O error, dev nvme0n1, sector 95243456 op 0x0:(READ) flags 0x80700 phys_seg 13 prio class 2",
     "nvme0n1", kMediaError, EIO, 95243456},
    {"I/O error, dev loop3, sector 0 op 0x2:(FLUSH) flags 0x800 phys_seg 0 prio class 2", "loop3",
     kFsyncError, EIO},
    {"critical medium error, dev nvme0n1, sector 0 op 0x1:(WRITE) flags 0x800 phys_seg 0 prio "
     "class 2",
     "nvme0n1", kFsyncError, ENODATA},
    {"I/O error, dev nvme1n1, sector 499204104 op 0x3:(DISCARD) flags 0x800 phys_seg 1 prio class "
     "2",
     "nvme1n1", std::nullopt, EIO, 499204104},
    {"operation not supported error, dev nvme0n1, sector 8 op 0x9:(WRITE_ZEROES) flags 0x800 "
     "phys_seg 0 prio class 2",
     "nvme0n1", std::nullopt, std::nullopt, 8},
    {"timeout error, dev nvme0n1, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
     "nvme0n1", kControllerReset, ETIMEDOUT, 8},
    {"protection error, dev nvme0n1, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
     "nvme0n1", kCorruption, EILSEQ, 8},
    {"critical space allocation error, dev nvme0n1, sector 8 op 0x1:(WRITE) flags 0x0 phys_seg 1 "
     "prio class 2",
     "nvme0n1", kFull, ENOSPC, 8},
    {"device offline error, dev sdb, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
     "sdb", kGone, ENODEV, 8},
    {"nvme0n1: detected capacity change from 6251233968 to 0", "nvme0n1", kGone},
    {"Buffer I/O error on dev nvme0n1p1, logical block 1024, lost async page write", "nvme0n1p1",
     kWriteError},
    {"Buffer I/O error on dev dm-0, logical block 20639616, async page read", "dm-0", kMediaError},
    {"Buffer I/O error on device vdb, logical block 12", "vdb", kWriteError},
    {"dm-3: writeback error on inode 131, offset 1766125568, sector 4059696", "dm-3", kWriteError,
     std::nullopt, 4059696},

    // NVMe.
    {"nvme0n1: I/O Cmd(0x2) @ LBA 2048, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) DNR ",
     "nvme0n1", kMediaError, std::nullopt, std::nullopt, 2048, 2, 0x81},
    {"nvme0n1: Write(0x1) @ LBA 4096, 8 blocks, Write Fault (sct 0x2 / sc 0x80) MORE DNR ",
     "nvme0n1", kWriteError, std::nullopt, std::nullopt, 4096, 2, 0x80},
    {"nvme0n1: I/O Cmd(0x0) @ LBA 18446744073709551615, 0 blocks, I/O Error (sct 0x2 / sc 0x80) ",
     "nvme0n1", kFsyncError, std::nullopt, std::nullopt, std::nullopt, 2, 0x80},
    {"nvme0n1: I/O Cmd(0x2) @ LBA 95243456, 104 blocks, I/O Error (sct 0x3 / sc 0x71) ", "nvme0n1",
     kControllerReset, std::nullopt, std::nullopt, 95243456, 3, 0x71},
    {"nvme0n1: Write(0x1) @ LBA 0, 1 blocks, Namespace is Write Protected (sct 0x0 / sc 0x20) DNR ",
     "nvme0n1", kReadOnly, std::nullopt, std::nullopt, 0, 0, 0x20},
    {"nvme0n1: Read(0x2) @ LBA 1, 1 blocks, End-to-end Guard Check Error (sct 0x2 / sc 0x82) ",
     "nvme0n1", kCorruption, std::nullopt, std::nullopt, 1, 2, 0x82},
    {"nvme0n1: Dataset Management(0x9) @ LBA 0, 8 blocks, Internal Error (sct 0x0 / sc 0x6) ",
     "nvme0n1", std::nullopt, std::nullopt, std::nullopt, 0, 0, 0x06},
    {"nvme nvme0: I/O 960 QID 26 timeout, aborting", "nvme0", kControllerReset},
    {"nvme nvme0: I/O 864 (I/O Cmd) QID 1 timeout, aborting", "nvme0", kControllerReset},
    {"nvme nvme0: I/O tag 12 (400c) opcode 0x9 (Admin Cmd) QID 0 timeout, reset controller",
     "nvme0", kControllerReset},
    {"nvme nvme0: I/O tag 12 (400c) opcode 0x1 (I/O Cmd) QID 2 timeout, aborting req_op:WRITE(1) "
     "size:4096",
     "nvme0", kControllerReset},
    {"nvme nvme0: I/O 87 QID 1 timeout, completion polled", "nvme0", kControllerReset},
    {"nvme nvme0: I/O 0 QID 0 timeout, disable controller", "nvme0", kControllerReset},
    {"nvme nvme1: I/O tag 3 (1003) type 4 opcode 0x2 (Read) QID 4 timeout", "nvme1",
     kControllerReset},
    {"nvme nvme0: Abort status: 0x371", "nvme0", kControllerReset},
    {"nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS read failed (134)",
     "nvme0", kControllerReset},
    {"nvme nvme0: Device not ready; aborting reset, CSTS=0x1", "nvme0", kControllerReset},
    {"nvme nvme0: resetting controller due to AER", "nvme0", kControllerReset},
    {"nvme nvme0: frozen state error detected, reset controller", "nvme0", kControllerReset},
    {"nvme nvme0: failure state error detected, request disconnect", "nvme0", kGone},
    {"nvme nvme0: Removing after probe failure status: -19", "nvme0", kGone, ENODEV},
    {"nvme nvme0: Disabling device after reset failure: -19", "nvme0", kGone, ENODEV},
    {"nvme 0000:04:00.0: Unable to change power state from D3cold to D0, device inaccessible",
     "0000:04:00.0", kGone},

    // PCIe.
    {"pcieport 0000:00:02.0: pciehp: Slot(1): Link Down", "0000:00:02.0", kGone},
    {"pcieport 0000:00:02.0: pciehp: Slot(1-2): Card not present", "0000:00:02.0", kGone},
    {"pcieport 0000:00:1c.0: AER: Corrected error received: 0000:3b:00.0", "0000:3b:00.0",
     kLinkDegraded},
    {"pcieport 0000:00:1c.0: AER: Multiple Uncorrected (Non-Fatal) error received: 0000:3b:00.0",
     "0000:3b:00.0", kLinkDegraded},
    {"pcieport 0000:00:1c.0: AER: Correctable error message received from 0000:3b:00.0",
     "0000:3b:00.0", kLinkDegraded},
    {"nvme 0000:3b:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
     "0000:3b:00.0", kLinkDegraded},
    {"pcieport 0000:00:1c.0: AER: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction "
     "Layer, (Requester ID)",
     "0000:00:1c.0", kLinkDegraded},

    // XFS.
    {"XFS (nvme0n1p1): Filesystem has been shut down due to log error (0x2).", "nvme0n1p1",
     kFilesystemShutdown},
    {"XFS (loop0): Metadata I/O Error (0x1) detected at xfs_trans_read_buf_map+0x1fe/0x4c0 [xfs] "
     "(fs/xfs/xfs_trans_buf.c:311).  Shutting down filesystem.",
     "loop0", kFilesystemShutdown},
    {"XFS (sda3): Log I/O Error Detected. Shutting down filesystem", "sda3", kFilesystemShutdown},
    {"XFS (dm-0): log I/O error -5", "dm-0", kWriteError, EIO},
    {"XFS (sdl): metadata I/O error in \"xfs_imap_to_bp+0x4f/0x70 [xfs]\" at daddr 0x4804c4398 len "
     "32 error 5",
     "sdl", kMediaError, EIO, 0x4804c4398},
    {"XFS (nvme0n1): metadata I/O error in \"xfs_buf_ioend+0x1f0/0x2e0 [xfs]\" at daddr 0x2 len 1 "
     "error 5",
     "nvme0n1", kWriteError, EIO, 2},
    {"XFS (nvme0n1): metadata I/O error in \"xfs_buf_ioend+0x1f0/0x2e0 [xfs]\" at daddr 0x2 len 1 "
     "error 28",
     "nvme0n1", kFull, ENOSPC, 2},
    {"XFS (sda4): Metadata corruption detected at xfs_dinode_verify.part.0+0x739/0x920 [xfs], "
     "inode 0x427b2d1",
     "sda4", kCorruption},
    {"XFS (sda2): Metadata CRC error detected at xfs_agf_read_verify+0xd0/0xf0 [xfs], xfs_agf "
     "block "
     "0x1",
     "sda2", kCorruption},

    // ext4 and its journal.
    {"EXT4-fs (nvme0n1p1): Remounting filesystem read-only", "nvme0n1p1", kFilesystemShutdown},
    {"EXT4-fs error (device dm-21): ext4_journal_check_start:87: comm postgres: Detected aborted "
     "journal",
     "dm-21", kFilesystemShutdown},
    {"EXT4-fs error (device sda1): ext4_wait_block_bitmap:580: comm postgres: Cannot read block "
     "bitmap - block_group = 3, checksum invalid",
     "sda1", kCorruption},
    {"EXT4-fs error (device nvme0n1): __ext4_get_inode_loc_noinmem:4600: inode #2: block 10: comm "
     "ls: unable to read itable block",
     "nvme0n1", kMediaError},
    {"EXT4-fs error (device nvme0n1): __ext4_find_entry:1663: inode #2: comm ls: error -5 reading "
     "directory lblock 0",
     "nvme0n1", kMediaError, EIO},
    {"EXT4-fs warning (device nvme0n1p1): ext4_end_bio:343: I/O error 7 writing to inode 12 "
     "starting block 34816)",
     "nvme0n1p1", kWriteError, ENODATA},
    {"EXT4-fs warning (device sdb1): ext4_end_bio:323: I/O error 10 writing to inode 12 (offset 0 "
     "size 4096 starting block 33)",
     "sdb1", kWriteError, EIO},
    {"EXT4-fs warning (device dm-1): ext4_end_bio:343: I/O error 3 writing to inode 12 starting "
     "block 34816)",
     "dm-1", kFull, ENOSPC},
    {"Aborting journal on device nvme0n1p1-8.", "nvme0n1p1", kFilesystemShutdown},
    {"Aborting journal on device dm-0-8.", "dm-0", kFilesystemShutdown},
    {"Aborting journal on device dm-12.", "dm-12", kFilesystemShutdown},
    {"JBD2: Detected IO errors while flushing file data on nvme0n1p1-8", "nvme0n1p1", kFsyncError},
    {"JBD2: Detected IO errors -5 while flushing file data on vdb-8", "vdb", kFsyncError},
    {"JBD2: I/O error when updating journal superblock for vdb-8.", "vdb", kWriteError},

    // btrfs.
    {"BTRFS info (device nvme0n1): forced readonly", "nvme0n1", kFilesystemShutdown},
    {"BTRFS warning (device vdb): csum failed root 5 ino 257 off 0 csum 0x1 expected csum 0x2 "
     "mirror 1",
     "vdb", kCorruption},
};

TEST(KernelLineTest, EveryWordingSaysWhatItMeans) {
  for (const Case& expected : kCases) {
    SCOPED_TRACE(expected.line);
    const auto finding = ClassifyKernelLine(expected.line);
    ASSERT_TRUE(finding.has_value());
    EXPECT_EQ(finding->name, expected.name);
    EXPECT_EQ(finding->fault_class, expected.fault_class);
    EXPECT_EQ(finding->error_number, expected.error_number);
    EXPECT_EQ(finding->sector, expected.sector);
    EXPECT_EQ(finding->logical_block, expected.logical_block);
    ASSERT_EQ(finding->nvme_status.has_value(), expected.type >= 0);
    if (finding->nvme_status) {
      EXPECT_EQ(finding->nvme_status->type, expected.type);
      EXPECT_EQ(finding->nvme_status->code, expected.code);
    }
    EXPECT_FALSE(finding->what.empty());
  }
}

TEST(KernelLineTest, WhatEveryHealthyMachineLogsIsNotOfADisk) {
  for (const char* line :
       {"nvme nvme0: 56/0/0 default/read/poll queues",
        "nvme nvme0: Shutdown timeout set to 10 seconds",
        "nvme nvme0: missing or invalid SUBNQN field.", "nvme nvme0: pci function 0000:04:00.0",
        "nvme0n1: p1 p2", "nvme0n1: detected capacity change from 0 to 6251233968",
        "XFS (nvme0n1p1): Mounting V5 Filesystem 522795a0-828a-4476-9928-c71a0ff20619",
        "XFS (nvme0n1p1): Ending clean mount", "XFS (nvme0n1p1): Unmounting Filesystem",
        "EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode. Opts: (null)",
        "EXT4-fs (nvme0n1p1): re-mounted. Opts: (null)",
        "EXT4-fs warning (device sda1): ext4_multi_mount_protect:326: MMP interval 42",
        "iomap_finish_ioend: 15 callbacks suppressed", "run (4698): drop_caches: 3",
        "pcieport 0000:00:02.0: pciehp: Slot(1): Card present",
        "pcieport 0000:00:02.0: pciehp: Slot(1): Link Up",
        "pcieport 0000:00:1c.0: AER: enabled with IRQ 122",
        "Adding 1048572k swap on /dev/nvme0n1p2.  Priority:-2 extents:1", ""}) {
    EXPECT_FALSE(ClassifyKernelLine(line).has_value()) << line;
  }
}

TEST(KernelLineTest, OnlyThePlainErrorIsGeneric) {
  EXPECT_TRUE(ClassifyKernelLine("I/O error, dev sda, sector 1 op 0x0:(READ) flags 0x0 phys_seg 1 "
                                 "prio class 2")
                  ->generic);
  EXPECT_FALSE(
      ClassifyKernelLine("critical medium error, dev sda, sector 1 op 0x0:(READ) flags 0x0 "
                         "phys_seg 1 prio class 2")
          ->generic);
}

TEST(KernelLineTest, TheTextNamesTheStatus) {
  EXPECT_THAT(ClassifyKernelLine("nvme0n1: Read(0x2) @ LBA 2048, 8 blocks, Unrecovered Read Error "
                                 "(sct 0x2 / sc 0x81) DNR ")
                  ->what,
              Eq("Unrecovered Read Error of a read (NVMe status 2/81h)"));
  EXPECT_THAT(ClassifyKernelLine("pcieport 0000:00:1c.0: AER: Uncorrected (Fatal) error received: "
                                 "0000:3b:00.0")
                  ->what,
              HasSubstr("Uncorrected (Fatal) error of its PCIe link"));
}

TEST(KernelLineTest, StatusesOfTheHostAndOfTheCommandAreNotTheDrives) {
  EXPECT_EQ(ClassOfNvmeStatus({0, 0x02}, true), std::nullopt);   // invalid field
  EXPECT_EQ(ClassOfNvmeStatus({1, 0x09}, true), std::nullopt);   // invalid log page
  EXPECT_EQ(ClassOfNvmeStatus({2, 0x85}, false), std::nullopt);  // compare failure
  EXPECT_THAT(ClassOfNvmeStatus({3, 0x70}, true), Optional(kControllerReset));
  EXPECT_THAT(ClassOfNvmeStatus({1, 0x82}, true), Optional(kReadOnly));
  EXPECT_THAT(ClassOfNvmeStatus({7, 0x01}, false), Optional(kMediaError));
}

}  // namespace
}  // namespace metal::disk
