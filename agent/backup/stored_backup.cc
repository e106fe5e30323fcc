#include "agent/backup/stored_backup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "agent/backup/copy_rules.h"
#include "agent/backup/wal_verify.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/store/frame.h"

namespace metal::backup {
namespace {

absl::Status Lost(std::string text) {
  return base::WithReason(absl::DataLossError(std::move(text)), {"REPOSITORY", {}});
}

absl::Status CheckPack(const std::string& path, const PackReference& reference,
                       uint64_t system_identifier) {
  auto fd = base::OpenFile(path, O_RDONLY);
  if (absl::IsNotFound(fd.status())) return Lost(fmt::format("pack {} is missing", path));
  if (!fd.ok()) return fd.status();
  struct stat status {};
  if (fstat(fd->get(), &status) != 0) return base::ErrnoStatus(errno, "stat", path);
  if (static_cast<uint64_t>(status.st_size) != reference.bytes) {
    return Lost(fmt::format("pack {} has {} bytes and should have {}", path, status.st_size,
                            reference.bytes));
  }
  std::byte bytes[store::kPackHeaderSize];
  const ssize_t got = pread(fd->get(), bytes, sizeof bytes, 0);
  if (got < 0) return base::ErrnoStatus(errno, "read", path);
  if (got != static_cast<ssize_t>(sizeof bytes))
    return Lost(fmt::format("pack {} is cut off", path));
  const auto header = store::DecodePackHeader(bytes);
  if (!header.ok())
    return Lost(fmt::format("pack {}: {}", path, std::string(header.status().message())));
  if (header->system_identifier != system_identifier ||
      fmt::format("{}/{}.pack", header->label, header->number) != reference.path) {
    return Lost(fmt::format("pack {} is another pack: {}/{} of system {}", path, header->label,
                            header->number, header->system_identifier));
  }
  return absl::OkStatus();
}

// OID of the tablespace that a file lies in; 0: none.
uint32_t TablespaceOf(std::string_view path) {
  constexpr std::string_view kLinks = "pg_tblspc/";
  if (path.substr(0, kLinks.size()) != kLinks) return 0;
  path.remove_prefix(kLinks.size());
  return ParseOid(path.substr(0, path.find('/'))).value_or(0);
}

}  // namespace

absl::StatusOr<StoredBackup> OpenStoredBackup(const std::string& repository_path,
                                              uint64_t system_identifier, std::string_view label) {
  METAL_ASSIGN_OR_RETURN(const store::Repository repository,
                         store::Repository::Open(repository_path));
  const Catalog catalog(repository);
  StoredBackup backup;
  METAL_ASSIGN_OR_RETURN(backup.info, system_identifier == 0
                                          ? catalog.Find(label)
                                          : catalog.Get(system_identifier, label));
  const uint64_t system = backup.info.header.system_identifier;
  backup.list_path =
      base::JoinPath(repository.BackupDirectory(system, backup.info.label), kFileListName);
  backup.packs_directory = repository.PacksDirectory(system);
  return backup;
}

absl::StatusOr<std::unique_ptr<FileListReader>> OpenFileList(const StoredBackup& backup) {
  const BackupHeader& header = backup.info.header;
  auto list =
      FileListReader::Open(backup.list_path, {header.file_list_bytes, header.file_list_sha256,
                                              static_cast<uint32_t>(header.packs.size())});
  if (absl::IsNotFound(list.status())) return Lost(fmt::format("{} is missing", backup.list_path));
  return list;
}

absl::Status CheckPacks(const StoredBackup& backup) {
  for (const PackReference& pack : backup.info.header.packs) {
    METAL_RETURN_IF_ERROR(CheckPack(base::JoinPath(backup.packs_directory, pack.path), pack,
                                    backup.info.header.system_identifier));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<uint32_t, uint64_t>> ScanFileList(const StoredBackup& backup,
                                                          observe::Progress& progress) {
  METAL_ASSIGN_OR_RETURN(auto list, OpenFileList(backup));
  const BackupHeader& header = backup.info.header;
  std::map<uint32_t, uint64_t> bytes{{0, 0}};
  FileListRecord record;
  do {
    METAL_RETURN_IF_ERROR(progress.CheckCancelled());
    if (const absl::Status status = list->Next(record); !status.ok()) {
      return base::WithReason(base::Annotate(status, backup.list_path), {"REPOSITORY", {}});
    }
    if (record.kind == RecordKind::kTablespace) {
      const auto known = header.tablespaces.find(record.tablespace);
      if (known == header.tablespaces.end() || known->second != record.location) {
        return Lost(fmt::format("{}: tablespace {} at {} is not in the manifest", backup.list_path,
                                record.tablespace, record.location));
      }
    }
    if (record.kind == RecordKind::kFile) bytes[TablespaceOf(record.file.path)] += record.file.size;
    if (record.kind == RecordKind::kExtent &&
        record.extent.pack_offset + record.extent.stored_length >
            header.packs[record.extent.pack].bytes) {
      return Lost(fmt::format("{}: an extent passes the end of pack {}", backup.list_path,
                              header.packs[record.extent.pack].path));
    }
  } while (record.kind != RecordKind::kEnd);
  if (record.files != header.files || record.bytes != header.bytes) {
    return Lost(fmt::format("{}: counts do not match the manifest", backup.list_path));
  }
  return bytes;
}

WalRange WalRangeOf(const BackupHeader& header) {
  WalRange range;
  range.system_identifier = header.system_identifier;
  range.timeline = header.timeline;
  range.from = header.start_lsn;
  range.to = header.stop_lsn;
  range.segment_size = header.wal_segment_size;
  return range;
}

absl::StatusOr<uint64_t> CheckBackupWal(const BackupHeader& header,
                                        const OperationContext& context) {
  if (context.wal_archive == nullptr) return 0;
  const WalRange range = WalRangeOf(header);
  METAL_ASSIGN_OR_RETURN(const std::vector<std::string> missing,
                         context.wal_archive->MissingSegments(range));
  if (!missing.empty()) return WalMissing(missing);
  const uint64_t first = range.from.value / range.segment_size;
  const uint64_t last = (range.to.value - 1) / range.segment_size;
  return last - first + 1;
}

UnpackOptions UnpackOptionsFor(const StoredBackup& backup, const OperationContext& context) {
  UnpackOptions options;
  options.packs_directory = backup.packs_directory;
  options.packs = backup.info.header.packs;
  options.threads = CodecThreads(context.config.backup_threads);
  options.queue_depth = static_cast<uint32_t>(std::max(context.config.backup_queue_depth, 1));
  options.memory = context.config.backup_memory;
  return options;
}

absl::StatusOr<std::unique_ptr<UnpackPipeline>> MakeUnpackPipeline(
    UnpackOptions options, const OperationContext& context) {
  METAL_ASSIGN_OR_RETURN(const uring::EngineKind kind,
                         uring::ParseEngineKind(context.config.io_engine));
  MemoryShare share;
  if (context.memory != nullptr) {
    METAL_ASSIGN_OR_RETURN(
        share, context.memory->Take(UnpackMemory(options), UnpackMemoryLeast(), context.progress));
    options.memory = share.bytes();
  }
  METAL_ASSIGN_OR_RETURN(uring::EngineChoice choice,
                         context.make_engine(kind, UnpackEngineDepth(options)));
  return UnpackPipeline::Create(std::move(options), std::move(choice.engine), context.progress,
                                std::move(share));
}

}  // namespace metal::backup
