#include "agent/disk/nvme/firmware_list.h"

#include <algorithm>
#include <iterator>

namespace metal::disk {
namespace {

constexpr uint64_t kWarningHours = 30 * 24;

constexpr std::string_view kStops = "stops for ever, and its data is lost";
constexpr std::string_view kHpe = "HPE, customer bulletin on SSD firmware HPD7 (March 2020)";

constexpr BadFirmware kBadFirmware[] = {
    {"Samsung SSD 980 PRO", "3B2QGXA7", "5B2QGXA7", 0, "turns read-only with failing media",
     "Puget Systems, Critical Samsung SSD Firmware Update (2023)"},
    {"Samsung SSD 990 PRO", "0B2QJXD7", "1B2QJXD7", 0, "wears out much faster than it is used",
     "Samsung, release notes of firmware 1B2QJXD7 (2023)"},
    // Drives of SAS and SATA, which a node may have beside its NVMe drives.
    {"EK0800JVYPN", "", "HPD7", 40'000, kStops, kHpe},
    {"EO1600JVYPP", "", "HPD7", 40'000, kStops, kHpe},
    {"MK0800JVYPQ", "", "HPD7", 40'000, kStops, kHpe},
    {"MO1600JVYPR", "", "HPD7", 40'000, kStops, kHpe},
    {"M4-CT", "", "0309", 5'184, "does not answer for an hour after each hour of work",
     "Crucial, firmware 0309 for the m4 (2012)"},
};

bool IsOlder(std::string_view firmware, std::string_view mended) {
  return firmware.size() == mended.size() && firmware < mended;
}

}  // namespace

const BadFirmware* FindBadFirmware(std::string_view model, std::string_view firmware) {
  const auto* const row =
      std::find_if(std::begin(kBadFirmware), std::end(kBadFirmware), [&](const BadFirmware& each) {
        if (!model.starts_with(each.model)) return false;
        return each.firmware.empty() ? IsOlder(firmware, each.mended) : firmware == each.firmware;
      });
  return row == std::end(kBadFirmware) ? nullptr : row;
}

bool IsBadFirmwareDue(const BadFirmware& row, std::optional<uint64_t> power_on_hours) {
  return !power_on_hours || *power_on_hours + kWarningHours >= row.hours;
}

}  // namespace metal::disk
