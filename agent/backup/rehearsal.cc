#include "agent/backup/rehearsal.h"

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "agent/backup/rehearsal_scratch.h"
#include "agent/backup/rehearsal_settings.h"
#include "agent/backup/restore.h"
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"
#include "agent/pg/control_file.h"
#include "agent/pg/install.h"
#include "agent/pg/process.h"
#include "agent/pg/session.h"

namespace metal::backup {
namespace {

using base::JoinPath;

constexpr int kPort = 5432;  // only names the socket: nothing listens on TCP
constexpr absl::Duration kBootPoll = absl::Milliseconds(200);
constexpr absl::Duration kNoProgressLimit = absl::Minutes(10);
constexpr absl::Duration kCheckLimit = absl::Hours(24);
// For WAL and temporary files of the server, and so that the agent's own files, which may lie on
// the same disk, never find it full.
constexpr base::ByteCount kSpaceReserve{3 * base::kGiB};
constexpr int kFirstWithAmcheck = 14;  // the program; the extension is older

class Rehearsal {
 public:
  Rehearsal(const BackupHeader& header, const std::string& scratch, const OperationContext& context)
      : header_(header), context_(context), install_(context.config.pg_bin_dir), parent_(scratch) {}

  absl::StatusOr<std::string> Run() {
    METAL_RETURN_IF_ERROR(CheckPrograms());
    METAL_ASSIGN_OR_RETURN(scratch_,
                           MakeRehearsalScratch(context_.config.state_dir, parent_, header_.label));
    absl::StatusOr<std::string> result = RestoreAndBoot();
    const absl::Status removed = RemoveRehearsalScratch(scratch_, context_.config.pg_bin_dir,
                                                        context_.clock, context_.agent_ends);
    if (!removed.ok()) base::LogWarning("rehearsal: {}", std::string(removed.message()));
    if (result.ok() && !removed.ok()) return removed;
    return result;
  }

 private:
  absl::Status CheckPrograms();
  absl::StatusOr<std::string> RestoreAndBoot();
  absl::Status Restore();
  absl::Status Boot();
  absl::Status AwaitOpen();
  absl::StatusOr<std::string> Amcheck();
  absl::StatusOr<size_t> CheckIndexes(pg::SqlSession& session, const std::string& database);
  absl::Status RunAmcheckProgram();
  absl::StatusOr<Settings> ServerSettings();
  absl::StatusOr<std::unique_ptr<pg::SqlSession>> Connect(const std::string& database) const;
  absl::Status Failed(std::string_view what) const;
  pg::PostmasterPlace Place() const { return {scratch_.data(), context_.config.pg_bin_dir}; }
  std::string InRoot(std::string_view name) const { return JoinPath(scratch_.root, name); }

  const BackupHeader& header_;
  const OperationContext& context_;
  pg::Install install_;
  const std::string parent_;
  RehearsalScratch scratch_;
  std::shared_ptr<const pg::Postmaster> postmaster_;
};

absl::Status Rehearsal::CheckPrograms() {
  METAL_ASSIGN_OR_RETURN(const pg::PostgresVersion version, install_.Version());
  if (version.major() != header_.postgres_version / 10000) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "rehearsal: the backup is of PostgreSQL {}, {} has {}. HINT: set "
                       "postgres.bin_dir to the programs of that version",
                       header_.postgres_version / 10000, install_.bin_dir(), version.text);
  }
  return absl::OkStatus();
}

absl::Status Rehearsal::Failed(std::string_view what) const {
  const std::string words = pg::LogFailure(InRoot("postgres.log"), 0);
  return base::Error(absl::StatusCode::kInternal, "rehearsal of backup {}: {}{}{}", header_.label,
                     what, words.empty() ? "" : ": ", words);
}

absl::Status Rehearsal::Restore() {
  RestoreRequest request;
  request.backup = header_.label;
  request.system_identifier = header_.system_identifier;
  request.target_directory = scratch_.data();
  request.recovery_target = RecoveryTarget::kImmediate;
  request.space_reserve = kSpaceReserve;
  for (const auto& [oid, location] : header_.tablespaces) {
    request.tablespace_mapping[oid] = InRoot(fmt::format("tablespace-{}", oid));
  }
  return RestoreBackup(request, context_).status();
}

absl::StatusOr<Settings> Rehearsal::ServerSettings() {
  const std::string hba = InRoot("hba.conf");
  METAL_RETURN_IF_ERROR(base::WriteFileDurably(hba, "local all all trust\n"));
  const int major = header_.postgres_version / 10000;
  Settings settings =
      RehearsalSettings(major, {scratch_.data(), scratch_.socket, hba, header_.wal_segment_size});
  const std::string conf = JoinPath(scratch_.data(), "postgresql.conf");
  METAL_ASSIGN_OR_RETURN(const bool has_conf, base::Exists(conf));
  if (has_conf) return settings;
  // The source keeps its configuration elsewhere: what recovery insists on comes from pg_control.
  METAL_RETURN_IF_ERROR(base::WriteFileDurably(conf, "# rehearsal\n"));
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control, pg::ReadControlFile(scratch_.data()));
  settings.emplace_back("max_connections", fmt::format("{}", control.max_connections));
  settings.emplace_back("max_worker_processes", fmt::format("{}", control.max_worker_processes));
  settings.emplace_back("max_wal_senders", fmt::format("{}", control.max_wal_senders));
  settings.emplace_back("max_prepared_transactions",
                        fmt::format("{}", control.max_prepared_transactions));
  settings.emplace_back("max_locks_per_transaction",
                        fmt::format("{}", control.max_locks_per_transaction));
  return settings;
}

absl::StatusOr<std::unique_ptr<pg::SqlSession>> Rehearsal::Connect(
    const std::string& database) const {
  pg::ConnectOptions options;
  options.socket_dir = scratch_.socket;
  options.port = kPort;
  options.user = context_.config.pg_superuser;
  options.database = database;
  options.application_name = "metal-agent rehearsal";
  options.statement_timeout = absl::ZeroDuration();
  options.settings = RehearsalSessionSettings(header_.postgres_version / 10000);
  return pg::ConnectLibpq(options);
}

absl::Status Rehearsal::Boot() {
  context_.progress.BeginPhase("rehearsal: starting PostgreSQL");
  pg::LaunchOptions launch;
  launch.place = Place();
  METAL_ASSIGN_OR_RETURN(launch.program, install_.Program("postgres"));
  launch.log_path = InRoot("postgres.log");
  launch.port = kPort;
  launch.socket_dir = scratch_.socket;
  METAL_ASSIGN_OR_RETURN(launch.settings, ServerSettings());
  launch.cancelled = [this] { return context_.progress.cancelled(); };
  METAL_ASSIGN_OR_RETURN(postmaster_, pg::LaunchPostmaster(launch, context_.clock));
  METAL_RETURN_IF_ERROR(NoteRehearsalServer(scratch_, postmaster_->pid()));
  METAL_RETURN_IF_ERROR(base::FaultPoint("verify.rehearsal_started"));
  return AwaitOpen();
}

// Open for writes means: WAL was replayed to consistency, and recovery ended. Waits as long as the
// replay makes progress.
absl::Status Rehearsal::AwaitOpen() {
  context_.progress.BeginPhase("rehearsal: replaying WAL");
  std::string seen, refused;
  base::MonotonicTime moved = context_.clock.Monotonic();
  while (true) {
    METAL_RETURN_IF_ERROR(context_.progress.CheckCancelled());
    if (!postmaster_->alive()) return Failed("PostgreSQL ended before it was consistent");
    std::string now;
    if (auto session = Connect("postgres"); session.ok()) {
      auto row = (*session)->Query(
          "SELECT pg_is_in_recovery() AS recovering, pg_last_wal_replay_lsn()::text AS lsn",
          absl::Seconds(5));
      if (row.ok() && !row->Bool(0, "recovering")) return absl::OkStatus();
      if (row.ok()) now = row->Text(0, "lsn");
    } else {
      refused = std::string(session.status().message());
    }
    if (const auto control = pg::ReadControlFile(scratch_.data()); now.empty() && control.ok()) {
      now = fmt::format("{} {}", control->min_recovery.ToString(), control->redo.ToString());
    }
    if (now != seen) {
      seen = now;
      moved = context_.clock.Monotonic();
    }
    if (context_.clock.Monotonic() - moved > kNoProgressLimit) {
      return Failed("PostgreSQL makes no progress with the replay" +
                    (refused.empty() ? "" : ", the last connection: " + refused));
    }
    context_.clock.Sleep(kBootPoll);
  }
}

absl::StatusOr<std::string> Rehearsal::Amcheck() {
  context_.progress.BeginPhase("rehearsal: amcheck");
  METAL_ASSIGN_OR_RETURN(auto session, Connect("postgres"));
  METAL_ASSIGN_OR_RETURN(
      const pg::SqlResult databases,
      session->Query("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1",
                     absl::Seconds(30)));
  session.reset();
  const bool has_program = header_.postgres_version / 10000 >= kFirstWithAmcheck;
  size_t indexes = 0;
  for (size_t i = 0; i < databases.rows.size(); ++i) {
    const std::string database = databases.Text(i, "datname");
    METAL_ASSIGN_OR_RETURN(auto connection, Connect(database));
    METAL_RETURN_IF_ERROR(
        connection->Query("CREATE EXTENSION IF NOT EXISTS amcheck", absl::Seconds(60)).status());
    if (has_program) continue;
    METAL_ASSIGN_OR_RETURN(const size_t checked, CheckIndexes(*connection, database));
    indexes += checked;
  }
  if (!has_program) {
    return fmt::format("amcheck found nothing in {} B-trees of {} databases", indexes,
                       databases.rows.size());
  }
  METAL_RETURN_IF_ERROR(RunAmcheckProgram());
  return fmt::format("pg_amcheck found nothing in {} databases", databases.rows.size());
}

// What pg_amcheck does for indexes: each against its table. Answers how many were checked.
absl::StatusOr<size_t> Rehearsal::CheckIndexes(pg::SqlSession& session,
                                               const std::string& database) {
  // The source may have the extension already, in any schema.
  METAL_ASSIGN_OR_RETURN(
      const pg::SqlResult place,
      session.Query("SELECT quote_ident(n.nspname) AS name FROM pg_extension e JOIN pg_namespace n "
                    "ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'",
                    absl::Seconds(30)));
  METAL_ASSIGN_OR_RETURN(
      const pg::SqlResult indexes,
      session.Query("SELECT c.oid::text AS oid, c.oid::regclass::text AS name FROM pg_index i "
                    "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
                    "WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' "
                    "AND i.indisready AND i.indisvalid ORDER BY c.oid",
                    absl::Minutes(5)));
  const std::string schema = place.rows.empty() ? "public" : place.Text(0, "name");
  for (size_t i = 0; i < indexes.rows.size(); ++i) {
    METAL_RETURN_IF_ERROR(context_.progress.CheckCancelled());
    const auto checked = session.Query(
        fmt::format("SELECT {}.bt_index_check({}::oid, true)", schema, indexes.Text(i, "oid")),
        kCheckLimit);
    if (checked.ok()) continue;
    return base::Annotate(checked.status(),
                          fmt::format("rehearsal of backup {}: bt_index_check of {} in database {}",
                                      header_.label, indexes.Text(i, "name"), database));
  }
  return indexes.rows.size();
}

absl::Status Rehearsal::RunAmcheckProgram() {
  base::SubprocessOptions check;
  METAL_ASSIGN_OR_RETURN(const std::string program, install_.Program("pg_amcheck"));
  check.argv = {program,
                "--all",
                "--heapallindexed",
                "--no-password",
                "-h",
                scratch_.socket,
                "-p",
                fmt::format("{}", kPort),
                "-U",
                context_.config.pg_superuser};
  std::string options;
  for (const auto& [name, value] : RehearsalSessionSettings(header_.postgres_version / 10000)) {
    options += fmt::format("-c {}={} ", name, value);
  }
  check.environment["PGOPTIONS"] = options;
  check.timeout = kCheckLimit;
  check.cancelled = [this] { return context_.progress.cancelled(); };
  METAL_ASSIGN_OR_RETURN(const base::SubprocessResult result, base::RunSubprocess(check));
  if (result.ok()) return absl::OkStatus();
  const std::string words = result.standard_output + result.standard_error;
  return base::Error(absl::StatusCode::kDataLoss, "rehearsal of backup {}: pg_amcheck: {}",
                     header_.label, words.substr(0, 2000));
}

absl::StatusOr<std::string> Rehearsal::RestoreAndBoot() {
  METAL_RETURN_IF_ERROR(Restore());
  METAL_RETURN_IF_ERROR(Boot());
  METAL_ASSIGN_OR_RETURN(const std::string amcheck, Amcheck());
  return fmt::format("restored, consistent at {}, open for writes; {}", header_.stop_lsn.ToString(),
                     amcheck);
}

}  // namespace

absl::StatusOr<std::string> Rehearse(const BackupHeader& header, const std::string& scratch,
                                     const OperationContext& context) {
  Rehearsal rehearsal(header, scratch, context);
  return rehearsal.Run();
}

}  // namespace metal::backup
