// Arbitrary bytes as records of the kernel's log, device events, file system errors, sysfs texts
// and lines of PostgreSQL's log: they are read or rejected, never read beyond their end, and what a
// matched line names is part of it.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "agent/base/check.h"
#include "agent/disk/sources/block_stat.h"
#include "agent/disk/sources/filesystem.h"
#include "agent/disk/sources/kernel_log.h"
#include "agent/disk/sources/postgres_log.h"
#include "agent/disk/sources/pressure.h"
#include "agent/disk/sources/sysfs_watch.h"
#include "agent/disk/sources/uevent.h"

namespace {

metal::disk::DiskNames Names() {
  metal::disk::DiskNames names;
  for (const char* name : {"nvme0n1", "nvme0n1p1", "nvme0", "dm-0", "0000:3b:00.0", "b259:1"}) {
    names.Add(name, "nvme0n1");
  }
  names.SetBlockSize("nvme0n1", 4096);
  return names;
}

void FuzzKernelLog(std::string_view text, const metal::disk::DiskNames& names) {
  if (const auto finding = metal::disk::ClassifyKernelLine(text)) {
    METAL_CHECK(text.find(finding->name) != std::string_view::npos);
  }
  const auto record = metal::base::ParseKernelRecord(text);
  if (!record) return;
  metal::disk::KernelLogJudge judge;
  metal::disk::Findings findings;
  for (int second = 0; second < 3; ++second) {
    judge.OnRecord(*record, names, {.time = absl::UnixEpoch(), .monotonic = {}}, findings);
  }
  for (const auto& evidence : findings.evidence) {
    METAL_CHECK(evidence.device == "nvme0n1" && !evidence.kernel_line.empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static const metal::disk::DiskNames kNames = Names();
  FuzzKernelLog(text, kNames);
  if (const auto event = metal::disk::ParseUevent(text)) {
    metal::disk::JudgeUevent(*event, kNames, absl::UnixEpoch());
  }
  metal::disk::PostgresLogJudge postgres;
  metal::disk::Findings findings;
  postgres.OnLine(text, {"wal"}, {.time = absl::UnixEpoch(), .monotonic = {}}, findings);
  for (const auto& evidence : findings.evidence) METAL_CHECK(!evidence.role.empty());
  metal::disk::FindMountState(text, 259, 1);
  metal::disk::ParseFilesystemErrors(std::as_bytes(std::span(data, size)));
  metal::disk::ParseBlockStat(text);
  metal::disk::ParseInflight(text);
  metal::disk::ParseLinkSpeed(text);
  metal::disk::ParseAerTotal(text);
  if (const auto pressure = metal::disk::ParsePressure(text)) {
    METAL_CHECK(pressure->some_10s >= 0 && pressure->some_10s <= 1);
  }
  return 0;
}
