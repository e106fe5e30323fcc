#include "agent/disk/inventory.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::disk {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 16;  // layers under one path
constexpr size_t kMaxAttribute = 8192;
constexpr uint64_t kSectorSize = 512;  // unit of sysfs "size", whatever the disk's block size is

std::string Trim(std::string text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

// A sysfs attribute without surrounding blanks; empty when it cannot be read.
std::string Attribute(const fs::path& directory, const char* name) {
  absl::StatusOr<std::string> text = base::ReadFile((directory / name).string(), kMaxAttribute);
  return text.ok() ? Trim(*std::move(text)) : "";
}

uint64_t NumberAttribute(const fs::path& directory, const char* name) {
  const std::string text = Attribute(directory, name);
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// Where a sysfs link leads; empty when it is not there.
fs::path Canonical(const fs::path& path) {
  std::error_code error;
  fs::path result = fs::canonical(path, error);
  return error ? fs::path() : result;
}

std::vector<std::string> Names(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// "nvme" followed by digits alone: a controller ("nvme0"), not a namespace ("nvme0n1").
bool IsNvmeController(std::string_view name) {
  constexpr std::string_view kPrefix = "nvme";
  return name.size() > kPrefix.size() && name.substr(0, kPrefix.size()) == kPrefix &&
         std::all_of(name.begin() + kPrefix.size(), name.end(),
                     [](char c) { return c >= '0' && c <= '9'; });
}

// The controller directory of a namespace: its parent, or with multipath the first controller of
// its subsystem.
fs::path NvmeController(const fs::path& disk) {
  const fs::path device = Canonical(disk / "device");
  if (IsNvmeController(device.filename().string())) return device;
  for (const std::string& name : Names(device)) {
    if (IsNvmeController(name)) return Canonical(device / name);
  }
  return {};
}

// "none [mq-deadline] kyber" → "mq-deadline".
std::string ActiveScheduler(const std::string& text) {
  const size_t open = text.find('[');
  const size_t close = text.find(']', open);
  if (open == std::string::npos || close == std::string::npos) return text;
  return text.substr(open + 1, close - open - 1);
}

std::string Transport(const fs::path& disk, const std::string& name, const fs::path& controller) {
  if (name.starts_with("nvme")) {
    const std::string fabric = controller.empty() ? "" : Attribute(controller, "transport");
    return fabric.empty() || fabric == "pcie" ? "nvme" : "nvme-" + fabric;
  }
  if (name.starts_with("vd")) return "virtio";
  if (name.starts_with("xvd")) return "xen";
  if (name.starts_with("mmcblk")) return "mmc";
  if (name.starts_with("zram") || name.starts_with("ram") || name.starts_with("pmem")) {
    return "memory";
  }
  if (!name.starts_with("sd") && !name.starts_with("sr")) return "unknown";
  // A SCSI disk: its place in the device tree tells the bus.
  const std::string place = Canonical(disk).string();
  constexpr std::pair<std::string_view, std::string_view> kBuses[] = {
      {"/usb", "usb"}, {"/ata", "sata"}, {"/virtio", "virtio"}, {"/end_device-", "sas"}};
  for (const auto& [part, transport] : kBuses) {
    if (place.find(part) != std::string::npos) return std::string(transport);
  }
  return "scsi";
}

// SCSI keeps the serial number in binary vital product data: 4 bytes of header, then text.
std::string ScsiSerial(const fs::path& device) {
  absl::StatusOr<std::string> page = base::ReadFile((device / "vpd_pg80").string(), kMaxAttribute);
  return page.ok() && page->size() > 4 ? Trim(page->substr(4)) : "";
}

DiskInfo DescribeDisk(const fs::path& disk) {
  DiskInfo info;
  info.name = disk.filename().string();
  const fs::path device = disk / "device";
  const fs::path controller = info.name.starts_with("nvme") ? NvmeController(disk) : fs::path();
  info.nvme_controller = controller.filename().string();
  const fs::path identity = controller.empty() ? device : controller;
  info.model = Attribute(identity, "model");
  if (info.model.empty()) info.model = Attribute(device, "name");  // mmc
  info.serial = Attribute(disk, "serial");
  if (info.serial.empty()) info.serial = Attribute(identity, "serial");
  if (info.serial.empty()) info.serial = ScsiSerial(device);
  info.wwid = Attribute(disk, "wwid");
  if (info.wwid.empty()) info.wwid = Attribute(device, "wwid");
  info.firmware = Attribute(identity, "firmware_rev");
  if (info.firmware.empty()) info.firmware = Attribute(device, "rev");
  info.transport = Transport(disk, info.name, controller);
  const fs::path queue = disk / "queue";
  info.scheduler = ActiveScheduler(Attribute(queue, "scheduler"));
  info.write_cache = Attribute(queue, "write_cache");
  info.size_bytes = NumberAttribute(disk, "size") * kSectorSize;
  info.logical_block_size = NumberAttribute(queue, "logical_block_size");
  info.physical_block_size = NumberAttribute(queue, "physical_block_size");
  info.rotational = Attribute(queue, "rotational") == "1";
  return info;
}

// Walks from one filesystem's device down to the disks.
class StackWalk {
 public:
  StackWalk(const SysRoots& roots, const std::vector<Mount>& mounts, StorageStack& stack)
      : roots_(roots), mounts_(mounts), stack_(stack) {}

  void FromMount(const Mount& mount, int depth) {
    const fs::path device = DeviceOf(mount);
    if (device.empty()) {
      stack_.note = WhyNoDevice(mount);
      return;
    }
    FromDevice(device, depth);
    if (mount.filesystem == "btrfs") FromBtrfsMembers(device.filename().string(), depth);
  }

 private:
  fs::path DeviceOf(const Mount& mount) const {
    const std::string number = std::to_string(mount.major) + ":" + std::to_string(mount.minor);
    if (mount.major != 0) {
      const fs::path by_number = Canonical(fs::path(roots_.sys) / "dev/block" / number);
      if (!by_number.empty()) return by_number;
    }
    // btrfs mounts have an anonymous number; their source names a member.
    constexpr std::string_view kDev = "/dev/";
    if (!mount.source.starts_with(kDev)) return {};
    const fs::path node = Canonical(fs::path(roots_.dev) / mount.source.substr(kDev.size()));
    if (node.empty()) return {};
    return Canonical(fs::path(roots_.sys) / "class/block" / node.filename());
  }

  static std::string WhyNoDevice(const Mount& mount) {
    if (mount.filesystem == "tmpfs" || mount.filesystem == "ramfs") {
      return mount.filesystem + " keeps its files in memory";
    }
    if (mount.filesystem == "overlay")
      return "overlay: a union of directories of other filesystems";
    if (mount.filesystem == "zfs")
      return "zfs: sysfs does not show the disks of pool " + mount.source;
    return mount.filesystem + " on " + mount.source + ": no block device in sysfs";
  }

  // `device` is a canonical sysfs directory of a block device.
  void FromDevice(const fs::path& device, int depth) {
    const std::string name = device.filename().string();
    if (depth > kMaxDepth) {
      stack_.note = "more than " + std::to_string(kMaxDepth) + " layers under " + name;
      return;
    }
    if (std::find(stack_.layers.begin(), stack_.layers.end(), name) != stack_.layers.end()) return;
    stack_.layers.push_back(name);
    if (Exists(device / "partition")) return FromDevice(device.parent_path(), depth + 1);
    const std::vector<std::string> slaves = Names(device / "slaves");
    for (const std::string& slave : slaves) {
      const fs::path below = Canonical(device / "slaves" / slave);
      if (!below.empty()) FromDevice(below, depth + 1);
    }
    if (!slaves.empty()) return;
    if (Exists(device / "loop/backing_file")) return FromLoop(device, depth);
    stack_.disks.push_back(DescribeDisk(device));
  }

  void FromLoop(const fs::path& device, int depth) {
    const std::string file = Attribute(device / "loop", "backing_file");
    const std::optional<Mount> mount = FindMount(mounts_, file);
    if (!mount) {
      stack_.note = device.filename().string() + ": backing file " + file + " is on no known mount";
      return;
    }
    FromMount(*mount, depth + 1);
  }

  void FromBtrfsMembers(const std::string& member, int depth) {
    const fs::path all = fs::path(roots_.sys) / "fs/btrfs";
    for (const std::string& filesystem : Names(all)) {
      if (!Exists(all / filesystem / "devices" / member)) continue;
      for (const std::string& name : Names(all / filesystem / "devices")) {
        const fs::path device = Canonical(all / filesystem / "devices" / name);
        if (!device.empty()) FromDevice(device, depth + 1);
      }
    }
  }

  const SysRoots& roots_;
  const std::vector<Mount>& mounts_;
  StorageStack& stack_;
};

}  // namespace

absl::StatusOr<StorageStack> ReadStorageStack(const SysRoots& roots, std::string_view path) {
  const std::string table = roots.proc + "/self/mountinfo";
  METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(table));
  const std::vector<Mount> mounts = ParseMountInfo(text);
  const std::optional<Mount> mount = FindMount(mounts, path);
  if (!mount) {
    return base::Error(absl::StatusCode::kNotFound, "find mount of {}: no line of {} holds it",
                       path, table);
  }
  StorageStack stack;
  stack.path = std::string(path);
  stack.mount = *mount;
  StackWalk(roots, mounts, stack).FromMount(*mount, 0);
  return stack;
}

absl::StatusOr<DiskInfo> ReadDiskInfo(const SysRoots& roots, std::string_view name) {
  const fs::path disk = Canonical(fs::path(roots.sys) / "class/block" / name);
  if (name.empty() || name.find('/') != std::string_view::npos || disk.empty()) {
    return base::Error(absl::StatusCode::kNotFound, "read disk {}: not in {}/class/block", name,
                       roots.sys);
  }
  return DescribeDisk(disk);
}

}  // namespace metal::disk
