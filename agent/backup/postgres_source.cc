#include "agent/backup/postgres_source.h"

#include <utility>

#include "agent/base/mutex.h"
#include "agent/base/status.h"
#include "agent/pg/backup_session.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kStopTimeout = absl::Minutes(5);

class PostgresSource final : public BackupSource {
 public:
  explicit PostgresSource(std::unique_ptr<pg::SqlSession> session) : session_(std::move(session)) {}

  absl::StatusOr<SourceArchiving> Archiving() override {
    base::MutexLock lock(mutex_);
    METAL_ASSIGN_OR_RETURN(pg::ArchiveSettings settings, session_.QueryArchiving());
    return SourceArchiving{settings.standby, std::move(settings.mode), std::move(settings.command),
                           std::move(settings.library)};
  }

  absl::StatusOr<SourceStart> Start(const SourceStartRequest& request) override {
    base::MutexLock lock(mutex_);
    pg::BackupStartOptions options;
    options.label = request.label;
    options.fast_checkpoint = request.fast_checkpoint;
    options.cancelled = request.cancelled;
    if (!request.fast_checkpoint)
      options.timeout = absl::Hours(25);  // checkpoint_timeout is at most a day
    METAL_ASSIGN_OR_RETURN(const pg::BackupStart start, session_.Start(options));
    return SourceStart{start.system_identifier, start.server_version, start.from_standby,
                       start.timeline, start.lsn};
  }

  absl::StatusOr<base::Lsn> CurrentLsn() override {
    base::MutexLock lock(mutex_);
    return session_.CurrentInsertLsn();
  }

  absl::StatusOr<SourceStop> Stop() override {
    base::MutexLock lock(mutex_);
    METAL_ASSIGN_OR_RETURN(pg::BackupStop stop, session_.Stop(kStopTimeout));
    return SourceStop{stop.timeline, stop.lsn, std::move(stop.backup_label),
                      std::move(stop.tablespace_map)};
  }

 private:
  base::Mutex mutex_;  // codec threads ask for the LSN while the backup's thread may be stopping
  pg::BackupSession session_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

SourceFactory MakePostgresSource(pg::ConnectOptions options) {
  options.statement_timeout = absl::ZeroDuration();
  options.lock_timeout = absl::ZeroDuration();
  options.application_name = "metal-agent backup";
  return [options]() -> absl::StatusOr<std::unique_ptr<BackupSource>> {
    METAL_ASSIGN_OR_RETURN(auto session, pg::ConnectLibpq(options));
    return std::make_unique<PostgresSource>(std::move(session));
  };
}

}  // namespace metal::backup
