#include "agent/disk/sources/disk_names.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "agent/base/file.h"

namespace metal::disk {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSectorSize = 512;

fs::path Canonical(const fs::path& path) {
  std::error_code error;
  fs::path result = fs::canonical(path, error);
  return error ? fs::path() : result;
}

// "0000:3b:00.0": domain, bus, device, function.
bool IsPciAddress(std::string_view name) {
  return name.size() >= 12 && std::count(name.begin(), name.end(), ':') == 2 &&
         name.find('.') != std::string_view::npos;
}

// "nvme0c1n1", a path of a multipath namespace, → "nvme0n1"; other names stay.
std::string WithoutPath(std::string_view name) {
  const size_t path = name.find('c');
  const size_t space = name.find('n', 1);
  if (!name.starts_with("nvme") || path == std::string_view::npos ||
      space == std::string_view::npos || space < path) {
    return std::string(name);
  }
  return std::string(name.substr(0, path)).append(name.substr(space));
}

}  // namespace

void DiskNames::AddStack(const SysRoots& roots, const StorageStack& stack) {
  const fs::path sys(roots.sys);
  for (const std::string& layer : stack.layers) {
    const bool one = stack.disks.size() == 1;
    const std::string disk = one ? stack.disks.front().name : layer;
    disks_.emplace(layer, disk);
    const auto number = base::ReadFile((sys / "class/block" / layer / "dev").string(), 64);
    if (!number.ok()) continue;
    const size_t end = number->find_last_not_of('\n');
    if (end != std::string::npos) disks_.emplace("b" + number->substr(0, end + 1), disk);
  }
  for (const DiskInfo& disk : stack.disks) {
    disks_[disk.name] = disk.name;
    if (disk.logical_block_size != 0) block_sizes_[disk.name] = disk.logical_block_size;
    if (disk.nvme_controller.empty()) continue;
    disks_[disk.nvme_controller] = disk.name;
    const fs::path function = Canonical(sys / "class/nvme" / disk.nvme_controller / "device");
    if (!IsPciAddress(function.filename().string())) continue;
    disks_[function.filename().string()] = disk.name;
    const std::string port = function.parent_path().filename().string();
    if (IsPciAddress(port)) disks_[port] = disk.name;
  }
}

std::optional<std::string> DiskNames::DiskOf(std::string_view name) const {
  if (name.starts_with('+')) {  // "+subsystem:name"
    const size_t colon = name.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    name.remove_prefix(colon + 1);
  }
  const auto found = disks_.find(name);
  if (found != disks_.end()) return found->second;
  const auto path = disks_.find(WithoutPath(name));
  if (path != disks_.end()) return path->second;
  return std::nullopt;
}

std::optional<uint64_t> DiskNames::SectorOf(const std::string& disk, uint64_t logical_block) const {
  const auto found = block_sizes_.find(disk);
  if (found == block_sizes_.end() || found->second < kSectorSize) return std::nullopt;
  return logical_block * (found->second / kSectorSize);
}

}  // namespace metal::disk
