#include "agent/disk/sources/sysfs_watch.h"

#include <charconv>
#include <filesystem>
#include <system_error>
#include <utility>

#include "agent/base/file.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxAttribute = 4096;
constexpr uint64_t kSectorSize = 512;

std::optional<std::string> Attribute(const fs::path& directory, std::string_view name) {
  const auto text = base::ReadFile((directory / name).string(), kMaxAttribute);
  if (!text.ok()) return std::nullopt;
  const size_t begin = text->find_first_not_of(" \t\n");
  if (begin == std::string::npos) return "";
  return text->substr(begin, text->find_last_not_of(" \t\n") - begin + 1);
}

std::optional<uint64_t> Number(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return number;
}

std::optional<PcieLink> Link(const fs::path& function, const std::string& prefix) {
  const auto speed = Attribute(function, prefix + "_link_speed");
  const auto width = Number(Attribute(function, prefix + "_link_width"));
  if (!speed || !width || *width == 0 || *width > 32) return std::nullopt;
  const auto parsed = ParseLinkSpeed(*speed);
  if (!parsed) return std::nullopt;
  return PcieLink{.gigatransfers = *parsed, .width = static_cast<int>(*width)};
}

std::optional<uint64_t> AerTotal(const fs::path& function, std::string_view name) {
  const auto text = Attribute(function, name);
  return text ? ParseAerTotal(*text) : std::nullopt;
}

void ReadController(const fs::path& controller, DiskSysfs& look) {
  look.state = Attribute(controller, "state");
  look.resets = Number(Attribute(controller / "diag", "reset_count"));
  std::error_code error;
  const fs::path function = fs::canonical(controller / "device", error);
  if (error) return;
  look.link = Link(function, "current");
  look.link_limit = Link(function, "max");
  if (const auto port = Link(function.parent_path(), "max"); port && look.link_limit) {
    look.link_limit->gigatransfers = std::min(look.link_limit->gigatransfers, port->gigatransfers);
    look.link_limit->width = std::min(look.link_limit->width, port->width);
  }
  look.correctable = AerTotal(function, "aer_dev_correctable");
  look.nonfatal = AerTotal(function, "aer_dev_nonfatal");
  look.fatal = AerTotal(function, "aer_dev_fatal");
}

}  // namespace

DiskSysfs ReadDiskSysfs(const SysRoots& roots, const std::string& disk,
                        const std::string& controller) {
  DiskSysfs look;
  const fs::path directory = fs::path(roots.sys) / "class/block" / disk;
  const auto size = Number(Attribute(directory, "size"));
  look.present = size.has_value();
  look.size_bytes = size.value_or(0) * kSectorSize;
  look.read_only = Attribute(directory, "ro") == "1";
  look.serial = Attribute(directory, "serial").value_or("");
  if (controller.empty()) return look;
  const fs::path nvme = fs::path(roots.sys) / "class/nvme" / controller;
  if (look.serial.empty()) look.serial = Attribute(nvme, "serial").value_or("");
  ReadController(nvme, look);
  return look;
}

std::optional<double> ParseLinkSpeed(std::string_view text) {
  double speed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), speed);
  if (error != std::errc() || !(speed > 0) || speed > 1000) return std::nullopt;
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  if (!unit.starts_with(" GT/s")) return std::nullopt;
  return speed;
}

std::optional<uint64_t> ParseAerTotal(std::string_view text) {
  constexpr std::string_view kTotal = "TOTAL_ERR_";
  const size_t at = text.find(kTotal);
  if (at == std::string_view::npos) return std::nullopt;
  const size_t space = text.find(' ', at);
  if (space == std::string_view::npos) return std::nullopt;
  uint64_t total = 0;
  const auto [end, error] =
      std::from_chars(text.data() + space + 1, text.data() + text.size(), total);
  if (error != std::errc()) return std::nullopt;
  return total;
}

Evidence& SysfsJudge::Add(FaultClass fault_class, std::string text) {
  Evidence evidence;
  evidence.fault_class = fault_class;
  evidence.witness = Witness::kSysfs;
  evidence.device = disk_;
  evidence.text = std::move(text);
  evidence.time = time_;
  return out_.emplace_back(std::move(evidence));
}

void SysfsJudge::Last(Condition condition, bool& held) {
  const bool ended = std::exchange(held, condition.holds) && !condition.holds;
  if (condition.holds) Add(condition.fault_class, std::move(condition.text));
  if (ended) Add(condition.fault_class, std::move(condition.end)).clears = true;
}

void SysfsJudge::Grew(std::optional<uint64_t> now, std::optional<uint64_t>& before,
                      FaultClass fault_class, std::string_view what) {
  const std::optional<uint64_t> last = std::exchange(before, now);
  // A counter that went back was set to zero, or is another device's.
  if (!now || !last || *now <= *last) return;
  const auto grown = static_cast<int64_t>(*now - *last);
  Add(fault_class, fmt::format("{}: {} {} since the last look", disk_, grown, what)).delta = grown;
}

std::vector<Evidence> SysfsJudge::Observe(const DiskSysfs& look, bool under_load, absl::Time time) {
  time_ = time;
  out_.clear();
  const bool dead = look.state && (*look.state == "dead" || look.state->starts_with("deleting"));
  const bool gone = !look.present || look.size_bytes == 0 || dead;
  const bool wrong = !gone && !serial_.empty() && !look.serial.empty() && look.serial != serial_;
  // Another drive in its place is no return.
  if (!wrong) {
    std::string why = look.present ? disk_ + " has size 0" : disk_ + " is not in sysfs any more";
    if (look.present && dead) why = fmt::format("the controller of {} is {}", disk_, *look.state);
    Last({gone, FaultClass::kGone, std::move(why), disk_ + " is back"}, gone_);
  }
  if (gone) return std::exchange(out_, {});
  Last({wrong, FaultClass::kWrongDevice,
        fmt::format("{} has serial number {}, it had {}", disk_, look.serial, serial_),
        fmt::format("{} has its serial number {} again", disk_, serial_)},
       wrong_);
  Last({look.read_only, FaultClass::kReadOnly, fmt::format("the kernel has {} as read-only", disk_),
        disk_ + " is writable again"},
       read_only_);
  JudgeState(look);
  JudgeLink(look, under_load);
  Grew(look.correctable, correctable_, FaultClass::kLinkDegraded, "corrected PCIe errors");
  Grew(look.nonfatal, nonfatal_, FaultClass::kLinkDegraded, "uncorrected PCIe errors");
  Grew(look.fatal, fatal_, FaultClass::kLinkDegraded, "fatal PCIe errors");
  Grew(look.resets, resets_, FaultClass::kControllerReset, "resets of its controller");
  return std::exchange(out_, {});
}

void SysfsJudge::JudgeState(const DiskSysfs& look) {
  const bool resetting = look.state && *look.state != "live" && *look.state != "new";
  if (std::exchange(resetting_, resetting) == resetting) return;
  if (resetting) {
    Add(FaultClass::kControllerReset,
        fmt::format("the controller of {} is {}", disk_, *look.state));
  } else {
    Add(FaultClass::kControllerReset, fmt::format("the controller of {} is live again", disk_))
        .clears = true;
  }
}

void SysfsJudge::JudgeLink(const DiskSysfs& look, bool under_load) {
  if (!look.link || !look.link_limit) return;
  const PcieLink &link = *look.link, &limit = *look.link_limit;
  Last({link.width < limit.width, FaultClass::kLinkDegraded,
        fmt::format("the PCIe link of {} has {} of {} lanes", disk_, link.width, limit.width),
        fmt::format("the PCIe link of {} has all its {} lanes again", disk_, link.width)},
       narrow_);
  const bool slow = link.gigatransfers < limit.gigatransfers;
  if (slow && !under_load && !slow_link_) return;
  Last({slow, FaultClass::kLinkDegraded,
        fmt::format("the PCIe link of {} runs at {} of {} GT/s", disk_, link.gigatransfers,
                    limit.gigatransfers),
        fmt::format("the PCIe link of {} runs at its {} GT/s again", disk_, link.gigatransfers)},
       slow_link_);
}

}  // namespace metal::disk
