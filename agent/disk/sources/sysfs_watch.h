// What sysfs says of a disk without asking the drive: there or not, size, read-only, the NVMe
// controller's state, its PCIe link and error counters.
// Only attributes that the kernel answers from its memory or from PCI configuration space are read:
// temperatures (hwmon), "nuse" and the like issue admin commands, which a dying controller does not
// answer.
// Threading: ReadDiskSysfs reads sysfs and may take long where a PCIe function is dying: on a
// thread that may hang. SysfsJudge is pure and not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "agent/disk/faults/evidence.h"
#include "agent/disk/inventory.h"

namespace metal::disk {

struct PcieLink {
  double gigatransfers = 0;  // per second and lane
  int width = 0;             // lanes
  friend bool operator==(const PcieLink&, const PcieLink&) = default;
};

// One look. nullopt: the kernel does not say.
struct DiskSysfs {
  bool present = false;
  uint64_t size_bytes = 0;
  bool read_only = false;
  std::string serial;                // empty: the kernel does not say
  std::optional<std::string> state;  // of the NVMe controller: "live", "resetting", "dead", …
  std::optional<PcieLink> link;
  std::optional<PcieLink> link_limit;  // what both the drive and the port that it is on can do
  std::optional<uint64_t> correctable, nonfatal, fatal;  // PCIe errors since boot
  std::optional<uint64_t> resets;                        // of the controller; Linux 7.2
};

DiskSysfs ReadDiskSysfs(const SysRoots& roots, const std::string& disk,
                        const std::string& controller);

// "8.0 GT/s PCIe" → 8; nullopt for "Unknown".
std::optional<double> ParseLinkSpeed(std::string_view text);
// The line "TOTAL_ERR_…" of an aer_dev_* attribute.
std::optional<uint64_t> ParseAerTotal(std::string_view text);

class SysfsJudge {
 public:
  // `serial`: of the disk that is expected under that name; empty: unknown.
  SysfsJudge(std::string disk, std::string serial)
      : disk_(std::move(disk)), serial_(std::move(serial)) {}

  // What lasts (gone, read-only, another drive, a narrow link) is told at every look, and its end
  // once, with `clears`. A controller that is not live is told once as well, for each time is a
  // reset; what a counter gained, once, with `delta`. A link that
  // is merely slower counts under load alone: idle links save power.
  std::vector<Evidence> Observe(const DiskSysfs& look, bool under_load, absl::Time time);

 private:
  struct Condition {
    bool holds = false;
    FaultClass fault_class{};
    std::string text, end;  // what to say while it holds, and once it ended
  };
  void Last(Condition condition, bool& held);
  void Grew(std::optional<uint64_t> now, std::optional<uint64_t>& before, FaultClass fault_class,
            std::string_view what);
  void JudgeState(const DiskSysfs& look);
  void JudgeLink(const DiskSysfs& look, bool under_load);
  Evidence& Add(FaultClass fault_class, std::string text);

  const std::string disk_, serial_;
  bool gone_ = false, read_only_ = false, wrong_ = false, narrow_ = false, slow_link_ = false;
  bool resetting_ = false;
  std::optional<uint64_t> correctable_, nonfatal_, fatal_, resets_;
  absl::Time time_;            // of the present look
  std::vector<Evidence> out_;  // what it says
};

}  // namespace metal::disk
