#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/run_operation.h"
#include "tools/metalctl/term_header.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

std::string FullName(const std::string& name) {
  return name.rfind("backups/", 0) == 0 ? name : "backups/" + name;
}

std::string StateWord(v1::BackupState state) {
  return EnumWord(v1::BackupState_Name(state), "BACKUP_STATE_");
}

// 0 when the backup could be fetched.
int FetchBackup(const Client& client, const std::string& name, v1::Backup* backup) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetBackupRequest request;
  request.set_name(FullName(name));
  v1::GetBackupResponse response;
  if (auto status = client.backup->GetBackup(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  *backup = response.backup();
  return kExitOk;
}

bool IsSuspect(const v1::Operation& operation) {
  const auto state = operation.result().find("state");
  return state != operation.result().end() && state->second == "suspect";
}

// Says that what was done was done with a backup whose source had corrupt pages, and gives the exit
// code for that.
int TellSuspect(const Client& client, const std::string& backup, std::string_view what) {
  Error error;
  error.code = "DATA_LOSS";
  error.message = fmt::format(
      "{}: backup {} is suspect: pages of its source do not match their checksum", what, backup);
  error.hint = fmt::format("metalctl backup show {} lists them", backup);
  return client.Fail(error, kExitCorrupt);
}

// Whether the restore could start; there is no operation to follow.
int TryRestore(const Client& client, const v1::RestoreBackupRequest& request) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::RestoreBackupResponse response;
  if (auto status = client.backup->RestoreBackup(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    fmt::print("{{\"validate_only\":true,\"name\":{},\"target_directory\":{}}}\n",
               JsonString(request.name()), JsonString(request.target_directory()));
  } else {
    fmt::print("the restore could start; nothing was changed\n");
    PrintNext("the same command without --dry-run");
  }
  return kExitOk;
}

}  // namespace

int CreateBackup(const Client& client, const BackupCreateOptions& options) {
  v1::CreateBackupRequest request;
  request.set_bytes_per_second_max(options.rate_limit);
  request.set_ignore_free_space(options.ignore_free_space);
  request.set_request_id(NewRequestId());
  if (options.codec == "zstd") request.set_codec(v1::BACKUP_CODEC_ZSTD);
  if (options.codec == "lz4") request.set_codec(v1::BACKUP_CODEC_LZ4);
  if (options.codec == "none") request.set_codec(v1::BACKUP_CODEC_NONE);
  if (options.level) request.set_level(*options.level);
  request.set_spread_checkpoint(options.spread_checkpoint);
  request.mutable_annotations()->insert(options.annotations.begin(), options.annotations.end());
  v1::Operation ended;
  int fetched = kExitOk;
  const int code = RunOperation(
      client, *client.backup, &v1::BackupService::Stub::CreateBackup, request, options.follow,
      [&](const v1::Operation& operation) {
        v1::Backup backup;
        fetched = FetchBackup(client, operation.result_name(), &backup);
        if (fetched != kExitOk) return;
        fmt::print("{}", BackupText(backup));
        PrintNext(IsSuspect(operation) ? "rebuild this node from a healthy one"
                                       : fmt::format("metalctl backup verify {}",
                                                     BackupId(operation.result_name())));
      },
      &ended);
  if (fetched != kExitOk) return fetched;
  if (code != kExitOk || !IsSuspect(ended)) return code;
  return TellSuspect(client, BackupId(ended.result_name()), "the backup was made");
}

int ListBackups(const Client& client) {
  v1::ListBackupsRequest request;
  v1::ListBackupsResponse all;
  do {
    grpc::ClientContext context;
    client.Prepare(context);
    v1::ListBackupsResponse page;
    if (auto status = client.backup->ListBackups(&context, request, &page); !status.ok()) {
      return client.Fail(status);
    }
    all.mutable_backups()->MergeFrom(page.backups());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (client.json()) {
    Client::PrintJson(all);
    return kExitOk;
  }
  TextTable table({"BACKUP", "STATE", "TAKEN", ">SIZE", ">STORED", "?>RATIO", "?>RATE", "?CODEC",
                   "?ENGINE", "?STOP LSN"});
  for (const auto& backup : all.backups()) {
    const auto& summary = backup.summary();
    table.AddRow({BackupId(summary.name()), StateWord(summary.state()),
                  FormatTime(summary.stop_time()), FormatBytes(summary.size_bytes()),
                  FormatBytes(summary.stored_bytes()),
                  FormatRatio(summary.size_bytes(), summary.stored_bytes()),
                  FormatRate(summary.bytes_per_second()), summary.codec(), summary.io_engine(),
                  FormatLsn(summary.stop_lsn())});
  }
  fmt::print("{}", table.empty() ? "no backups. HINT: metalctl backup create\n"
                                 : table.ToString(OutputOptions().width));
  return kExitOk;
}

int ShowBackup(const Client& client, const std::string& name) {
  v1::Backup backup;
  if (const int code = FetchBackup(client, name, &backup); code != kExitOk) return code;
  if (client.json()) {
    Client::PrintJson(backup);
  } else {
    fmt::print("{}", BackupText(backup));
  }
  return kExitOk;
}

int VerifyBackup(const Client& client, const BackupVerifyOptions& options) {
  v1::VerifyBackupRequest request;
  request.set_request_id(NewRequestId());
  request.set_name(FullName(options.name));
  request.set_rehearse(options.rehearse);
  request.set_scratch_directory(options.scratch_directory);
  v1::Operation ended;
  const int code = RunOperation(
      client, *client.backup, &v1::BackupService::Stub::VerifyBackup, request, options.follow,
      [&options](const v1::Operation& operation) {
        const std::string name = BackupId(operation.subject());
        fmt::print("{} {}\n", name,
                   IsSuspect(operation) ? "is stored as it was taken" : "is sound");
        PrintFacts(operation);
        if (IsSuspect(operation)) return;
        PrintNext(
            options.rehearse
                ? fmt::format("metalctl backup restore {} --target DIRECTORY", name)
                : fmt::format("metalctl backup verify {} --restore rehearses a restore", name));
      },
      &ended);
  if (code != kExitOk || !IsSuspect(ended)) return code;
  return TellSuspect(client, BackupId(ended.subject()), "the check is done");
}

int RestoreBackup(const Client& client, const RestoreOptions& options) {
  if (options.target_directory.empty() && options.term == 0) {
    return client.FailUsage(
        "a restore over the node's own data directory needs --term. HINT: --target DIRECTORY "
        "restores a copy elsewhere");
  }
  v1::RestoreBackupRequest request;
  SetHeader(options.term, options.orchestrator, request.mutable_header());
  request.set_name(FullName(options.name));
  request.set_target_directory(options.target_directory);
  request.mutable_tablespace_mapping()->insert(options.tablespaces.begin(),
                                               options.tablespaces.end());
  request.set_recovery_target(options.recover == "immediate" ? v1::RECOVERY_TARGET_IMMEDIATE
                              : options.recover == "standby" ? v1::RECOVERY_TARGET_STANDBY
                                                             : v1::RECOVERY_TARGET_LATEST);
  request.set_port(options.port);
  request.set_validate_only(options.dry_run);
  if (options.dry_run) return TryRestore(client, request);
  v1::Operation ended;
  const int code = RunOperation(
      client, *client.backup, &v1::BackupService::Stub::RestoreBackup, request, options.follow,
      [&options](const v1::Operation& restored) {
        PrintFacts(restored);
        PrintNext(options.target_directory.empty()
                      ? "metalctl pg start"
                      : fmt::format("pg_ctl -D {} start, as the user that PostgreSQL runs as",
                                    options.target_directory));
      },
      &ended);
  if (code != kExitOk || !IsSuspect(ended)) return code;
  return TellSuspect(client, BackupId(request.name()), "the restore is done");
}

int ShowArchive(const Client& client) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetArchiveStatusResponse response;
  if (auto status = client.backup->GetArchiveStatus(&context, {}, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  const auto& archive = response.status();
  FactList facts;
  facts.Add("archiving", archive.enabled() ? "on" : "off");
  facts.Add("waiting", archive.ready_segments() == 0
                           ? "nothing"
                           : fmt::format("{} segments, {}", archive.ready_segments(),
                                         FormatBytes(archive.backlog_bytes())));
  if (archive.has_oldest_ready_age())
    facts.Add("oldest waits", FormatDuration(archive.oldest_ready_age()));
  facts.Add("last archived",
            archive.last_archived_wal().empty()
                ? "none"
                : archive.last_archived_wal() + " at " + FormatTime(archive.last_archived_time()));
  facts.Add("failures", std::to_string(archive.failed_count()));
  facts.Add("last error", archive.last_error());
  fmt::print("{}", facts.ToString());
  TextTable table({">TIMELINE", "FIRST", "LAST", ">SEGMENTS", ">STORED", "MISSING"});
  for (const auto& timeline : response.timelines()) {
    std::string missing;
    for (const auto& segment : timeline.missing_segments())
      missing += (missing.empty() ? "" : " ") + segment;
    table.AddRow({std::to_string(timeline.timeline()), timeline.first_segment(),
                  timeline.last_segment(), std::to_string(timeline.segment_count()),
                  FormatBytes(timeline.stored_bytes()), missing.empty() ? "none" : missing});
  }
  if (!table.empty()) fmt::print("\n{}", table.ToString());
  return kExitOk;
}

}  // namespace metal::ctl
