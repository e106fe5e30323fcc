#include "agent/recorder/settings_copy.h"

#include <algorithm>
#include <array>
#include <utility>

#include "agent/base/file.h"
#include "fmt/format.h"

namespace metal::recorder {
namespace {

constexpr size_t kMost = 256 << 10;
constexpr std::array kNames = {"postgresql.conf", "postgresql.auto.conf", "metal.conf",
                               "pg_hba.conf", "pg_ident.conf"};

// Calls look(disk, probe) for each probe of the data directory.
template <typename Look>
void ForEachDataProbe(const observe::NodeStatus& status, Look look) {
  for (const observe::DiskSection& disk : status.disks) {
    for (const observe::ProbeSection& probe : disk.probes) {
      if (probe.role == "data") look(disk, probe);
    }
  }
}

}  // namespace

SettingsFiles ReadSettings(const std::string& data_directory) {
  SettingsFiles read;
  for (const char* name : kNames)
    read.emplace(name, base::ReadFile(base::JoinPath(data_directory, name), kMost));
  return read;
}

std::string TroubleOfDataDisk(const observe::NodeStatus& status) {
  std::string trouble;
  ForEachDataProbe(status, [&](const auto& disk, const auto& probe) {
    if (!trouble.empty() || (probe.state != "stalled" && probe.state != "faulted")) return;
    trouble =
        fmt::format("the data disk {} is {}: {}", disk.device, probe.state, probe.state_reason);
  });
  return trouble;
}

bool DataDiskIsWell(const observe::NodeStatus& status) {
  bool any = false, all = true;
  ForEachDataProbe(status, [&](const auto&, const auto& probe) {
    any = true;
    all = all && (probe.state == "healthy" || probe.state == "slow");
  });
  return any && all;
}

void SettingsCopy::Keep(SettingsFiles files, absl::Time now) {
  const std::shared_ptr<const Kept> before = Get();
  auto kept = std::make_shared<Kept>();
  bool any = false;
  for (auto& [name, text] : files) {
    const auto earlier = before->find(name);
    if (text.ok()) {
      kept->emplace(name, File{*std::move(text), now});
      any = true;
    } else if (!absl::IsNotFound(text.status()) && earlier != before->end()) {
      kept->insert(*earlier);
    }
  }
  if (!any) return;  // no data directory is there, or not any more
  base::MutexLock lock(mutex_);
  kept_ = std::move(kept);
}

std::shared_ptr<const SettingsCopy::Kept> SettingsCopy::Get() const {
  base::MutexLock lock(mutex_);
  return kept_;
}

}  // namespace metal::recorder
