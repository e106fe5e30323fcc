#include "agent/disk/sources/kernel_line.h"

#include <cerrno>

#include "agent/disk/nvme/nvme_status.h"
#include "agent/disk/sources/text_pattern.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

enum class Rule : uint8_t {
  kFixed,         // the row's class
  kBlockStatus,   // the block layer's word for its status, and the operation
  kNvmeCommand,   // an NVMe status and the command's code
  kXfsMetadata,   // who failed tells a read from a write
  kErrorOrFull,   // the row's class, or "full" when the error is ENOSPC
  kExt4Writeback  // the row's class; the number is a block status, not an errno
};

struct Row {
  std::string_view pattern;
  Rule rule = Rule::kFixed;
  FaultClass fault_class = FaultClass::kWriteError;
  std::string_view what{};  // empty: the line itself
};

using enum FaultClass;

// The first row that matches counts. Fields: dev, status, op, code, sct, sc, lba, sector, errno,
// function.
constexpr Row kRows[] = {
    // block/blk-mq.c, blk-core.c; up to 5.15 with the function's name in front.
    {"{status} error, dev {dev}, sector {sector} op {*}:({op}) {flags}", Rule::kBlockStatus},
    {"{dev}: detected capacity change from {*} to 0", Rule::kFixed, kGone, "its capacity became 0"},
    {"Buffer I/O error on dev {dev}, logical block {*}, lost {*} page write", Rule::kFixed,
     kWriteError, "a page of its cache could not be written and is lost"},
    {"Buffer I/O error on dev {dev}, logical block {*}, async page read", Rule::kFixed, kMediaError,
     "a block could not be read"},
    {"Buffer I/O error on device {dev}, logical block {*}", Rule::kFixed, kWriteError,
     "a page of its cache could not be written and is lost"},
    {"{dev}: writeback error on inode {*}, offset {*}, sector {sector}", Rule::kFixed, kWriteError,
     "pages of a file could not be written and are lost"},

    // drivers/nvme/host/core.c: I/O commands with the block, commands of the controller without.
    {"{dev}: {*}({code}) @ LBA {lba}, {*} blocks, {status} (sct {sct} / sc {sc}){*}",
     Rule::kNvmeCommand},
    // Timeouts: "I/O 12 QID 2 timeout, …" (5.10), "I/O 12 (I/O Cmd) QID 2 …" (6.2), "I/O tag 12
    // (400c) opcode 0x1 (Write) QID 2 …" (6.6).
    {"nvme {dev}: I/O {*}QID {*} timeout, aborting{*}", Rule::kFixed, kControllerReset,
     "a command timed out, the kernel aborts it"},
    {"nvme {dev}: I/O {*}QID {*} timeout, reset controller", Rule::kFixed, kControllerReset,
     "a command timed out, the kernel resets the controller"},
    {"nvme {dev}: I/O {*}QID {*} timeout, disable controller", Rule::kFixed, kControllerReset,
     "a command timed out, the kernel disables the controller"},
    {"nvme {dev}: I/O {*}QID {*} timeout, completion polled", Rule::kFixed, kControllerReset,
     "a command was done but its interrupt did not come"},
    {"nvme {dev}: I/O {*}QID {*} timeout{*}", Rule::kFixed, kControllerReset,
     "a command timed out"},
    {"nvme {dev}: Abort status: {*}", Rule::kFixed, kControllerReset, "a command was aborted"},
    {"nvme {dev}: controller is down; will reset: {*}", Rule::kFixed, kControllerReset,
     "the controller is down, the kernel resets it"},
    {"nvme {dev}: Device not ready; aborting {*}", Rule::kFixed, kControllerReset,
     "the controller does not become ready"},
    {"nvme {dev}: Device shutdown incomplete; {*}", Rule::kFixed, kControllerReset,
     "the controller does not shut down"},
    {"nvme {dev}: resetting controller{*}", Rule::kFixed, kControllerReset,
     "the controller reported an error of its own, the kernel resets it"},
    {"nvme {dev}: frozen state error detected, reset controller", Rule::kFixed, kControllerReset,
     "an error of the link, the kernel resets the controller"},
    {"nvme {dev}: IO queues {*}", Rule::kFixed, kControllerReset,
     "the controller came back without queues for I/O"},
    {"nvme {dev}: Identify Controller failed ({*})", Rule::kFixed, kControllerReset,
     "the controller does not identify itself"},
    {"nvme {dev}: starting error recovery", Rule::kFixed, kControllerReset,
     "the connection to the controller broke"},
    {"nvme {dev}: failure state error detected, request disconnect", Rule::kFixed, kGone,
     "its link failed, the kernel disconnects it"},
    {"nvme {dev}: Removing after probe failure status: {errno}", Rule::kFixed, kGone,
     "the kernel gave it up after a reset"},
    {"nvme {dev}: Disabling device after reset failure: {errno}", Rule::kFixed, kGone,
     "the kernel gave it up after a reset"},
    {"nvme {dev}: Unable to change power state from {*} to D0, device inaccessible", Rule::kFixed,
     kGone, "its PCIe function does not answer"},

    // drivers/pci: of the drive's function or of the port that it hangs on.
    {"pcieport {dev}: pciehp: Slot({*}): Link Down", Rule::kFixed, kGone,
     "the link of its slot is down"},
    {"pcieport {dev}: pciehp: Slot({*}): Card not present", Rule::kFixed, kGone,
     "its slot is empty"},
    {"{*}AER: {status} error{*}received: {dev}", Rule::kFixed, kLinkDegraded,
     "{status} error of its PCIe link"},
    {"{*}AER: {status} error{*}received from {dev}", Rule::kFixed, kLinkDegraded,
     "{status} error of its PCIe link"},
    {"nvme {dev}: {*}PCIe Bus Error: severity={status}, type={*}", Rule::kFixed, kLinkDegraded,
     "{status} error of its PCIe link"},
    {"pcieport {dev}: {*}PCIe Bus Error: severity={status}, type={*}", Rule::kFixed, kLinkDegraded,
     "{status} error of its PCIe link, seen by the port"},

    // fs/xfs
    {"XFS ({dev}): Filesystem has been shut down{*}", Rule::kFixed, kFilesystemShutdown,
     "XFS shut down"},
    {"XFS ({dev}): User initiated shutdown{*}", Rule::kFixed, kFilesystemShutdown,
     "XFS was shut down"},
    {"XFS ({dev}): {*}hutting down filesystem{*}", Rule::kFixed, kFilesystemShutdown,
     "XFS shut down"},
    {"XFS ({dev}): log I/O error {errno}", Rule::kErrorOrFull, kWriteError,
     "the log of XFS could not be written"},
    {"XFS ({dev}): metadata I/O error in \"{function}\" at daddr {sector} len {*} error {errno}",
     Rule::kXfsMetadata},
    {"XFS ({dev}): Failing async write on buffer block {*}", Rule::kFixed, kWriteError,
     "metadata of XFS could not be written, it tries again"},
    {"XFS ({dev}): Metadata corruption detected at {*}", Rule::kFixed, kCorruption,
     "XFS found damaged metadata"},
    {"XFS ({dev}): Metadata CRC error detected at {*}", Rule::kFixed, kCorruption,
     "XFS found metadata with a wrong checksum"},
    {"XFS ({dev}): Corruption detected{*}", Rule::kFixed, kCorruption, "XFS found damage"},
    {"XFS ({dev}): Internal error {*}", Rule::kFixed, kCorruption, "XFS found damage"},

    // fs/ext4, fs/jbd2
    {"EXT4-fs ({dev}): Remounting filesystem read-only", Rule::kFixed, kFilesystemShutdown,
     "ext4 made itself read-only"},
    {"EXT4-fs ({dev}): shut down requested{*}", Rule::kFixed, kFilesystemShutdown,
     "ext4 was shut down"},
    {"Aborting journal on device {dev}.", Rule::kFixed, kFilesystemShutdown,
     "ext4 aborted its journal"},
    {"EXT4-fs error (device {dev}): {*}aborted journal{*}", Rule::kFixed, kFilesystemShutdown,
     "ext4 aborted its journal"},
    {"EXT4-fs error (device {dev}): {*}ournal has aborted{*}", Rule::kFixed, kFilesystemShutdown,
     "ext4 aborted its journal"},
    {"EXT4-fs error (device {dev}): {*}IO failure{*}", Rule::kFixed, kFilesystemShutdown,
     "ext4 failed at its metadata"},
    {"EXT4-fs error (device {dev}): {*}Abort forced by user{*}", Rule::kFixed, kFilesystemShutdown,
     "ext4 was shut down"},
    {"EXT4-fs error (device {dev}): {*}unable to read{*}", Rule::kFixed, kMediaError,
     "ext4 could not read its metadata"},
    {"EXT4-fs error (device {dev}): {*}error {errno} reading {*}", Rule::kFixed, kMediaError,
     "ext4 could not read its metadata"},
    {"EXT4-fs error (device {dev}): {*}", Rule::kFixed, kCorruption, "ext4 found damage"},
    {"EXT4-fs warning (device {dev}): ext4_end_bio:{*}: I/O error {errno} writing to inode {*}",
     Rule::kExt4Writeback, kWriteError, "pages of a file could not be written and are lost"},
    {"EXT4-fs ({dev}): Delayed block allocation failed for inode {*} with error {errno}",
     Rule::kErrorOrFull, kWriteError, "pages of a file could not be written and are lost"},
    {"EXT4-fs ({dev}): failed to convert unwritten extents to written extents{*}", Rule::kFixed,
     kWriteError, "what was written to a file may be lost"},
    {"JBD2: Detected IO errors {*}while flushing file data on {dev}", Rule::kFixed, kFsyncError,
     "file data could not be written before a commit of ext4's journal"},
    {"JBD2: {*}rror {errno} detected when updating journal superblock for {dev}.", Rule::kFixed,
     kWriteError, "the journal of ext4 could not be written"},
    {"JBD2: I/O error {*}when updating journal superblock for {dev}.", Rule::kFixed, kWriteError,
     "the journal of ext4 could not be written"},

    // fs/btrfs
    {"BTRFS {*}(device {dev}): {*}forced readonly{*}", Rule::kFixed, kFilesystemShutdown,
     "btrfs made itself read-only"},
    {"BTRFS {*}(device {dev}): lost {*}write due to IO error {*}", Rule::kFixed, kWriteError,
     "a block of btrfs could not be written and is lost"},
    {"BTRFS {*}(device {dev}): checksum verify failed {*}", Rule::kFixed, kCorruption,
     "btrfs found metadata with a wrong checksum"},
    {"BTRFS {*}(device {dev}): csum failed {*}", Rule::kFixed, kCorruption,
     "btrfs found data with a wrong checksum"},
};

std::string_view Field(const TextFields& fields, std::string_view name) {
  const auto found = fields.find(name);
  return found == fields.end() ? std::string_view() : found->second;
}

std::optional<uint64_t> Unsigned(std::string_view text) {
  const auto number = ParseTextNumber(text);
  if (!number || *number < 0) return std::nullopt;
  return static_cast<uint64_t>(*number);
}

// errno as the kernel prints it: with either sign.
std::optional<int> ErrnoOf(std::string_view text) {
  const auto number = ParseTextNumber(text);
  if (!number || *number < -4095 || *number > 4095 || *number == 0) return std::nullopt;
  return static_cast<int>(*number < 0 ? -*number : *number);
}

struct BlockStatus {
  std::string_view word;
  int number = 0;        // blk_status_t, the same in all these kernels
  int error_number = 0;  // what system calls get
  std::optional<FaultClass> of_read, of_write;
};

// block/blk-core.c. What is about resources, retries and unsupported commands says nothing.
constexpr BlockStatus kBlockStatuses[] = {
    {"critical medium", 7, ENODATA, kMediaError, kWriteError},
    {"I/O", 10, EIO, kMediaError, kWriteError},
    {"timeout", 2, ETIMEDOUT, kControllerReset, kWriteError},
    {"recoverable transport", 4, ENOLINK, kControllerReset, kWriteError},
    {"critical target", 5, EREMOTEIO, kMediaError, kWriteError},
    {"protection", 8, EILSEQ, kCorruption, kWriteError},
    {"critical space allocation", 3, ENOSPC, kFull, kFull},
    {"device offline", 0, ENODEV, kGone, kGone},
    {"reservation conflict", 6, EBADE, std::nullopt, kWriteError},
    {"critical nexus", 6, EBADE, std::nullopt, kWriteError},
};

bool IsWrite(std::string_view operation) {
  return operation == "WRITE" || operation == "FLUSH" || operation == "ZONE_APPEND" ||
         operation == "WRITE_SAME";
}

void JudgeBlockStatus(const TextFields& fields, KernelFinding& finding) {
  std::string_view word = Field(fields, "status");
  const size_t function = word.rfind(": ");
  if (function != std::string_view::npos) word.remove_prefix(function + 2);
  std::string_view operation = Field(fields, "op");
  // The block layer carries out a flush as a write without data, at no place.
  const bool has_data = Field(fields, "flags").find(" phys_seg 0 ") == std::string_view::npos;
  if (operation == "WRITE" && !has_data) operation = "FLUSH";
  if (operation == "FLUSH") finding.sector.reset();
  finding.what = fmt::format("{} error of a {}", word, operation);
  for (const BlockStatus& status : kBlockStatuses) {
    if (status.word != word) continue;
    finding.error_number = status.error_number;
    finding.generic = status.error_number == EIO;
    if (operation == "READ") finding.fault_class = status.of_read;
    if (IsWrite(operation)) finding.fault_class = status.of_write;
  }
  if (operation == "FLUSH" && finding.fault_class == kWriteError) finding.fault_class = kFsyncError;
}

void JudgeNvmeCommand(const TextFields& fields, KernelFinding& finding) {
  const auto type = Unsigned(Field(fields, "sct"));
  const auto code = Unsigned(Field(fields, "sc"));
  const auto command = Unsigned(Field(fields, "code"));
  if (!type || *type > 7 || !code || *code > 255) return;
  finding.nvme_status = {.type = static_cast<uint8_t>(*type), .code = static_cast<uint8_t>(*code)};
  constexpr uint64_t kFlush = 0x00, kWrite = 0x01, kRead = 0x02, kZoneAppend = 0x7d;
  const bool writes = command == kFlush || command == kWrite || command == kZoneAppend;
  finding.what = fmt::format("{} of {} (NVMe status {:x}/{:02x}h)", Field(fields, "status"),
                             command == kFlush  ? "a flush"
                             : writes           ? "a write"
                             : command == kRead ? "a read"
                                                : "a command",
                             *type, *code);
  if (writes || command == kRead) {
    finding.fault_class = ClassOfNvmeStatus(*finding.nvme_status, writes);
  }
  if (command != kFlush) {
    finding.logical_block = Unsigned(Field(fields, "lba"));
  } else if (finding.fault_class == kWriteError) {
    finding.fault_class = kFsyncError;  // of all that the drive had confirmed and not yet stored
  }
}

void JudgeXfsMetadata(const TextFields& fields, KernelFinding& finding) {
  const std::string_view function = Field(fields, "function");
  // Completion and synchronous writing of a buffer; all others are its readers.
  const bool writes = function.starts_with("xfs_buf_ioend") || function.starts_with("xfs_bwrite") ||
                      function.starts_with("xfs_buf_iodone");
  finding.fault_class = writes ? kWriteError : kMediaError;
  if (finding.error_number == ENOSPC) finding.fault_class = kFull;
  finding.what = fmt::format("metadata of XFS could not be {}", writes ? "written" : "read");
}

std::optional<int> ErrnoOfBlockStatus(std::optional<int> number) {
  for (const BlockStatus& status : kBlockStatuses) {
    if (number && status.number == *number) return status.error_number;
  }
  return std::nullopt;
}

// "{status}" in a row's text is the line's word.
std::string WhatOf(const Row& row, const TextFields& fields, std::string_view line) {
  if (row.what.empty()) return std::string(line);
  std::string what(row.what);
  constexpr std::string_view kStatus = "{status}";
  const size_t at = what.find(kStatus);
  if (at != std::string::npos) what.replace(at, kStatus.size(), Field(fields, "status"));
  return what;
}

// "nvme0n1p1-8" and "dm-0-8" are journals in inode 8 of the file system there.
std::string DeviceName(std::string_view name) {
  const size_t from = name.starts_with("dm-") ? 3 : 0;
  return std::string(name.substr(0, name.find('-', from)));
}

}  // namespace

std::optional<FaultClass> ClassOfNvmeStatus(NvmeStatus status, bool writes) {
  const FaultClass failed = writes ? kWriteError : kMediaError;
  constexpr uint8_t kPath = 3, kVendor = 7;
  if (status.type == kPath) return kControllerReset;  // who gave the command up, not the medium
  if (status.type == kVendor) return failed;
  switch (KindOfStatus(status)) {
    case StatusKind::kUnreadable:
    case StatusKind::kUnwritten:
    case StatusKind::kInternal:
      return failed;
    case StatusKind::kCorrupt:
      return writes ? kWriteError : kCorruption;
    case StatusKind::kReadOnly:
      return kReadOnly;
    case StatusKind::kAborted:
      return kControllerReset;
    case StatusKind::kSuccess:
    case StatusKind::kRefused:
      return std::nullopt;
    case StatusKind::kOther:
      break;
  }
  if (status.type == 0 && status.code == 0x81) return kFull;             // capacity exceeded
  if (status.type == 0 && status.code == 0x82) return kControllerReset;  // namespace not ready
  return std::nullopt;
}

std::optional<KernelFinding> ClassifyKernelLine(std::string_view text) {
  for (const Row& row : kRows) {
    const std::optional<TextFields> fields = MatchText(row.pattern, text);
    if (!fields) continue;
    KernelFinding finding;
    finding.name = DeviceName(Field(*fields, "dev"));
    finding.what = WhatOf(row, *fields, text);
    finding.sector = Unsigned(Field(*fields, "sector"));
    finding.error_number = ErrnoOf(Field(*fields, "errno"));
    switch (row.rule) {
      case Rule::kFixed:
        finding.fault_class = row.fault_class;
        break;
      case Rule::kErrorOrFull:
        finding.fault_class = finding.error_number == ENOSPC ? kFull : row.fault_class;
        break;
      case Rule::kExt4Writeback:
        finding.error_number = ErrnoOfBlockStatus(finding.error_number);
        finding.fault_class = finding.error_number == ENOSPC ? kFull : row.fault_class;
        break;
      case Rule::kBlockStatus:
        JudgeBlockStatus(*fields, finding);
        break;
      case Rule::kNvmeCommand:
        JudgeNvmeCommand(*fields, finding);
        break;
      case Rule::kXfsMetadata:
        JudgeXfsMetadata(*fields, finding);
        break;
    }
    return finding;
  }
  return std::nullopt;
}

}  // namespace metal::disk
