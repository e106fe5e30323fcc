// Finds what a path is stored on: mount → block device → partitions, md, dm and loop devices → the
// disk(s).
// Source: /proc/self/mountinfo and sysfs only; never the filesystem of the path itself, so that a
// hung disk cannot hang it.
// Threading: pure functions of the trees under SysRoots. Reads of sysfs can be slow: not for the
// status path.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace metal::disk {

// Where the kernel's trees are mounted; tests point them at fixtures.
struct SysRoots {
  std::string proc = "/proc";
  std::string sys = "/sys";
  std::string dev = "/dev";
};

struct Mount {
  unsigned id = 0;  // another one after it was unmounted and mounted again
  unsigned major = 0, minor = 0;
  std::string root;  // the part of the filesystem that is mounted: "/" or a subvolume
  std::string mount_point;
  std::string filesystem;  // "ext4", "xfs", "btrfs", "tmpfs", …
  std::string source;      // "/dev/nvme0n1p1", "tmpfs", …
};

// Parses mountinfo text (proc(5)), in mount order, octal escapes decoded. Lines that make no sense
// are left out.
std::vector<Mount> ParseMountInfo(std::string_view text);

// The mount that holds `path`: the longest mount point that is a prefix, the last one mounted when
// there are several. REQUIRES: path is absolute and has no symbolic links (the answer is that of
// the text, not of the disk).
std::optional<Mount> FindMount(const std::vector<Mount>& mounts, std::string_view path);

// One physical (or virtual) disk: the lowest layer that sysfs shows. Empty strings and 0: the
// kernel does not say.
struct DiskInfo {
  std::string name;             // "nvme0n1", "vda", "sda"
  std::string nvme_controller;  // "nvme0", for admin commands; empty when it is not NVMe
  std::string model, serial, firmware;
  std::string wwid;       // world-wide name: "eui.…", "nvme.…", "naa.…"
  std::string transport;  // nvme, nvme-tcp, nvme-rdma, nvme-fc, virtio, sata, sas, usb, scsi, xen,
                          // mmc, memory, unknown
  std::string scheduler;  // the active one
  std::string write_cache;  // "write back", "write through"
  uint64_t size_bytes = 0;
  uint64_t logical_block_size = 0, physical_block_size = 0;
  bool rotational = false;
};

struct StorageStack {
  std::string path;
  Mount mount;
  std::vector<std::string>
      layers;  // from the filesystem's device down to the disk(s), by kernel name: "loop0", "vda"
  std::vector<DiskInfo> disks;  // empty when the filesystem has no disk
  std::string note;             // why there is none, e.g. "tmpfs keeps its files in memory"
};

// NOT_FOUND when no mount holds the path. A filesystem without a disk, or one whose devices sysfs
// does not show, is not an error: `note` says so. REQUIRES: as FindMount.
absl::StatusOr<StorageStack> ReadStorageStack(const SysRoots& roots, std::string_view path);

// Identity of one disk by its kernel name ("nvme0n1"). NOT_FOUND when sysfs does not have it.
absl::StatusOr<DiskInfo> ReadDiskInfo(const SysRoots& roots, std::string_view name);

}  // namespace metal::disk
