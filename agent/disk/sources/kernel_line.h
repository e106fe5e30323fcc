// Tells what a line of the kernel's log says of a disk.
// One table of wordings, of Linux 5.10 to 6.18: the block layer, NVMe, PCIe, XFS, ext4 with its
// journal, btrfs. Lines that say nothing of a disk's health match none.
// Threading: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent/disk/faults/evidence.h"

namespace metal::disk {

struct KernelFinding {
  // nullopt: of a disk, and worth an event, but no fault (a command that the drive does not offer).
  std::optional<FaultClass> fault_class;
  std::string name;  // as the line names the device: "nvme0n1p1", "nvme0", "0000:3b:00.0"
  std::string what;  // for people, without the device: "critical medium error of a READ"
  std::optional<uint64_t> sector;         // counted from the start of `name`
  std::optional<uint64_t> logical_block;  // NVMe's LBA, in blocks of the namespace
  std::optional<NvmeStatus> nvme_status;
  std::optional<int> error_number;
  // The block layer's "I/O error", which a medium, a reset and a removal end in alike.
  bool generic = false;
};

// nullopt: nothing about a disk. `text` is one line, without time and level.
std::optional<KernelFinding> ClassifyKernelLine(std::string_view text);

// What an NVMe status means to a command: `writes` says whether it was one that changes the medium.
// nullopt: nothing about the drive's health.
std::optional<FaultClass> ClassOfNvmeStatus(NvmeStatus status, bool writes);

}  // namespace metal::disk
