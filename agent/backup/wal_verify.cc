#include "agent/backup/wal_verify.h"

#include "agent/backup/wal_pages.h"
#include "agent/backup/wal_segment.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

absl::Status VerifyFile(WalArchive& archive, const WalRange& range, const std::string& name,
                        observe::Progress& progress) {
  const auto file = ParseWalFile(name);
  if (!file || file->kind != WalFileKind::kSegment) {
    return archive.Verify(range.system_identifier, name);
  }
  // A segment that was switched ends in empty pages. The one in which the range ends was not,
  // before that place.
  const auto named = base::ParseWalFileName(name, range.segment_size);
  const bool ends_inside =
      named && range.to > named->start && range.to.value < named->start.value + range.segment_size;
  WalPages pages(*file, range.system_identifier, ends_inside ? range.to : base::Lsn{});
  const WalSink check = [&](std::span<const std::byte> piece) {
    METAL_RETURN_IF_ERROR(progress.CheckCancelled());
    METAL_RETURN_IF_ERROR(pages.Add(piece));
    progress.AddDone(piece.size());
    return absl::OkStatus();
  };
  METAL_RETURN_IF_ERROR(archive.Fetch(range.system_identifier, name, check).status());
  return pages.Finish();
}

}  // namespace

absl::Status WalMissing(const std::vector<std::string>& missing) {
  return base::WithReason(
      absl::FailedPreconditionError(fmt::format(
          "WAL that the backup needs is not in the repository: {} files, the first is {}. HINT: "
          "push it with metal-wal, or use another backup",
          missing.size(), missing.front())),
      {"WAL_MISSING", {{"first_missing", missing.front()}}});
}

absl::StatusOr<uint64_t> VerifyRange(WalArchive& archive, const WalRange& range,
                                     observe::Progress& progress) {
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names, FilesOf(range));
  const uint64_t segments =
      (range.to.value - 1) / range.segment_size - range.from.value / range.segment_size + 1;
  progress.SetTotal(segments * range.segment_size);
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    const absl::Status status = VerifyFile(archive, range, name, progress);
    if (absl::IsNotFound(status)) {
      missing.push_back(name);
    } else if (!status.ok()) {
      return status;
    }
  }
  if (!missing.empty()) return WalMissing(missing);
  return segments;
}

}  // namespace metal::backup
