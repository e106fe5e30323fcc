// The kernel's device events as a source: a disk goes, comes back, or tells of itself.
// Source: netlink(7), NETLINK_KOBJECT_UEVENT, group 1: "action@devpath\0KEY=value\0…"; what the
// keys mean: the kernel's block/genhd.c and drivers/nvme/host/core.c.
// Receiving needs no privilege.
// Threading: ParseUevent and JudgeUevent are pure; UeventSocket is not thread-safe.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/fd.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/sources/disk_names.h"

namespace metal::disk {

struct Uevent {
  std::string action;       // "add", "remove", "change", "offline", "online", "bind", …
  std::string device_path;  // "/devices/pci0000:00/0000:00:03.0/nvme/nvme0/nvme0n1"
  std::string subsystem;    // "block", "nvme"
  std::map<std::string, std::string> values;

  // "nvme0n1": the last part of the path. '!' stands for '/' in names of the kernel.
  std::string name() const;
};

// nullopt when it is not a message of the kernel.
std::optional<Uevent> ParseUevent(std::string_view message);

struct UeventVerdict {
  std::optional<Evidence> evidence;
  // The disk came (back): whoever knows its serial decides whether it is the one that was here.
  bool came = false;
  std::string disk;
};

// nullopt: not of one of our disks, or says nothing.
std::optional<UeventVerdict> JudgeUevent(const Uevent& event, const DiskNames& names,
                                         absl::Time now);

class UeventSocket {
 public:
  // UNIMPLEMENTED where the kernel does not offer it.
  static absl::StatusOr<UeventSocket> Open();

  int fd() const { return socket_.get(); }
  // All there is. `lost`: the kernel dropped some because this end was too slow.
  std::vector<Uevent> Drain(bool& lost);

 private:
  explicit UeventSocket(base::UniqueFd socket) : socket_(std::move(socket)) {}
  base::UniqueFd socket_;
};

}  // namespace metal::disk
