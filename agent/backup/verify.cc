#include "agent/backup/verify.h"

#include <algorithm>
#include <memory>

#include "agent/backup/rehearsal.h"
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

  context.progress.BeginPhase("checking frames", header.bytes);
  METAL_ASSIGN_OR_RETURN(auto pipeline,
                         MakeUnpackPipeline(UnpackOptionsFor(backup, context), context));
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
  if (context.events != nullptr && !absl::IsCancelled(report.status())) {
    observe::Event event;
    event.time = absl::InfinitePast();
    event.severity = report.ok() ? observe::Severity::kInfo : observe::Severity::kCritical;
    event.type = report.ok() ? "backup.verified" : "backup.verify_failed";
    event.subject = "backups/" + (report.ok() ? report->backup : request.backup);
    event.message =
        report.ok()
            ? fmt::format("{} frames, {} WAL segments{}{}", report->frames, report->wal_segments,
                          report->rehearsal.empty() ? "" : "; ", report->rehearsal)
            : std::string(report.status().message());
    context.events->Append(std::move(event));
  }
  if (!report.ok())
    return base::Annotate(report.status(), fmt::format("verify backup {}", request.backup));
  return report;
}

}  // namespace metal::backup
