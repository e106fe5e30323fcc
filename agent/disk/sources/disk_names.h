// DiskNames: under which names the kernel speaks of the disks that a node's directories are on:
// partitions, device-mapper and md volumes, NVMe controllers and paths, PCI functions and the port
// that each hangs on.
// Threading: a plain value. AddStack alone does I/O: links of sysfs and device
// numbers, which ask no drive.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "agent/disk/inventory.h"

namespace metal::disk {

class DiskNames {
 public:
  // Adds what lies under one directory. A volume over several disks keeps its own name as the disk.
  void AddStack(const SysRoots& roots, const StorageStack& stack);
  // Adds one name by hand.
  void Add(std::string name, std::string disk) { disks_[std::move(name)] = std::move(disk); }
  void SetBlockSize(const std::string& disk, uint64_t bytes) { block_sizes_[disk] = bytes; }

  // The disk ("nvme0n1") behind a name: "nvme0n1p2", "dm-0", "nvme0", "nvme0c0n1",
  // "0000:3b:00.0"; or behind a record's DEVICE: "b259:1", "+pci:0000:3b:00.0", "+nvme:nvme0".
  // nullopt: not one of ours.
  std::optional<std::string> DiskOf(std::string_view name) const;
  // Sector of 512 bytes of a logical block; nullopt when the disk's block size is not known.
  std::optional<uint64_t> SectorOf(const std::string& disk, uint64_t logical_block) const;
  bool empty() const { return disks_.empty(); }

 private:
  std::map<std::string, std::string, std::less<>> disks_;
  std::map<std::string, uint64_t, std::less<>> block_sizes_;
};

}  // namespace metal::disk
