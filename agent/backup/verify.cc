#include "agent/backup/verify.h"

#include <algorithm>
#include <memory>

#include "agent/backup/rehearsal.h"
#include "agent/backup/replayed_tablespaces.h"
#include "agent/backup/stored_backup.h"
#include "agent/backup/tablespace_list.h"
#include "agent/backup/wal_verify.h"
#include "agent/base/fault_point.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

absl::StatusOr<VerifyReport> Verify(const VerifyRequest& request, const OperationContext& context) {
  const base::MonotonicTime begin = context.clock.Monotonic();
  context.progress.BeginPhase("checking structure");
  METAL_ASSIGN_OR_RETURN(
      const StoredBackup backup,
      OpenStoredBackup(context.config.repository_path, request.system_identifier, request.backup));
  const BackupHeader& header = backup.info.header;
  METAL_RETURN_IF_ERROR(CheckPacks(backup));
  METAL_RETURN_IF_ERROR(ScanFileList(backup, context.progress).status());
  const TablespaceList map = ParseTablespaceMap(header.tablespace_map);
  if (!std::ranges::equal(map, header.tablespaces, {}, &TablespaceList::value_type::first,
                          &TablespaceList::value_type::first)) {
    return base::WithReason(
        absl::DataLossError("the manifest's tablespaces are not those of its tablespace_map: the "
                            "copy could not be started. HINT: take a new backup"),
        {"REPOSITORY", {{"repository", context.config.repository_path}}});
  }
  METAL_RETURN_IF_ERROR(base::FaultPoint("verify.structure"));
  VerifyReport report;
  report.backup = header.label;
  report.suspect = backup.info.state == BackupState::kSuspect;
  if (context.wal_archive != nullptr) {
    context.progress.BeginPhase("checking WAL");
    METAL_ASSIGN_OR_RETURN(report.wal_segments,
                           VerifyRange(*context.wal_archive, WalRangeOf(header), context.progress));
  }
  if (request.rehearse) METAL_RETURN_IF_ERROR(CheckRehearsalStaysInside(header, context));

  METAL_ASSIGN_OR_RETURN(auto pipeline,
                         MakeUnpackPipeline(UnpackOptionsFor(backup, context), context));
  context.progress.BeginPhase("checking frames", header.bytes);
  METAL_ASSIGN_OR_RETURN(auto list, OpenFileList(backup));
  METAL_RETURN_IF_ERROR(pipeline->Run(*list));
  const UnpackTotals totals = pipeline->totals();
  if (totals.damaged_files > 0) {
    return base::WithReason(absl::DataLossError(fmt::format(
                                "{} frames and {} files are damaged, the first: {}. HINT: take a "
                                "new backup and look at "
                                "the repository's disk",
                                totals.damaged_frames, totals.damaged_files, totals.first_damage)),
                            {"REPOSITORY", {{"repository", context.config.repository_path}}});
  }
  report.files = totals.files;
  report.frames = totals.frames;
  report.bytes = totals.bytes;
  report.stored_bytes = totals.stored_bytes;
  pipeline.reset();
  if (request.rehearse) {
    const std::string scratch =
        request.scratch_directory.empty() ? context.config.state_dir : request.scratch_directory;
    METAL_ASSIGN_OR_RETURN(report.rehearsal, Rehearse(header, scratch, context));
  }
  report.elapsed = context.clock.Monotonic() - begin;
  return report;
}

}  // namespace

absl::StatusOr<VerifyReport> VerifyBackup(const VerifyRequest& request,
                                          const OperationContext& context) {
  auto report = Verify(request, context);
  if (report.ok()) {
    EmitEvent(context, observe::Severity::kInfo, "backup.verified", "backups/" + report->backup,
              fmt::format("{} frames, {} WAL segments{}{}", report->frames, report->wal_segments,
                          report->rehearsal.empty() ? "" : "; ", report->rehearsal));
  } else if (!absl::IsCancelled(report.status())) {
    EmitEvent(context, observe::Severity::kCritical, "backup.verify_failed",
              "backups/" + request.backup, std::string(report.status().message()));
  }
  if (!report.ok())
    return base::Annotate(report.status(), fmt::format("verify backup {}", request.backup));
  return report;
}

}  // namespace metal::backup
