#include "agent/pg/initdb.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"
#include "agent/pg/config_check.h"
#include "agent/pg/data_directory.h"

namespace metal::pg {
namespace {

constexpr const char* kTask = "initdb";
constexpr const char* kWork = "metal.initdb";
constexpr const char* kPasswordFile = "metal.initdb.password";
constexpr std::string_view kWalNote = "wal_dir ";
constexpr std::string_view kMadeWalNote = "made_wal_dir ";

absl::Status Invalid(const std::string& message) {
  return absl::InvalidArgumentError("initdb: " + message);
}

absl::Status CheckOptions(const InitdbOptions& options, int major) {
  const std::string& provider = options.locale_provider;
  if (!provider.empty() && provider != "libc" && provider != "icu" && provider != "builtin") {
    return Invalid(fmt::format("locale provider \"{}\" is none of libc, icu, builtin", provider));
  }
  if ((provider == "icu" && major < 15) || (provider == "builtin" && major < 17)) {
    return Invalid(fmt::format("locale provider {} needs PostgreSQL {}, this is {}. HINT: use libc",
                               provider, provider == "icu" ? 15 : 17, major));
  }
  const uint64_t segment = options.wal_segment_size.value;
  if (segment < base::kMiB || segment > base::kGiB || (segment & (segment - 1)) != 0) {
    return Invalid(fmt::format("WAL segment size {} is no power of two from 1 MiB to 1 GiB",
                               options.wal_segment_size.ToString()));
  }
  if (options.superuser.empty()) return Invalid("the superuser has no name");
  if (options.superuser_password.find_first_of("\r\n") != std::string::npos) {
    return Invalid("the password holds a line break");
  }
  if (!options.wal_dir.empty() && options.wal_dir[0] != '/') {
    return Invalid(fmt::format("WAL directory {} is no absolute path", options.wal_dir));
  }
  return absl::OkStatus();
}

// The WAL directory must be missing or empty: initdb fills it, and a clean-up empties it.
absl::Status CheckWalDirectory(const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  const absl::StatusOr<std::vector<std::string>> names = base::ListDirectory(path);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  if (names->empty()) return absl::OkStatus();
  return base::WithReason(base::Error(absl::StatusCode::kFailedPrecondition,
                                      "initdb: WAL directory {} is not empty. HINT: use an empty "
                                      "directory below the mount point",
                                      path),
                          {"WAL_DIRECTORY_NOT_EMPTY", {{"path", path}}});
}

std::vector<std::string> Arguments(const InitdbOptions& options, const std::string& program,
                                   int major, const std::string& work,
                                   const std::string& password_file) {
  std::vector<std::string> argv = {
      program,
      "-D",
      work,
      "-U",
      options.superuser,
      "--encoding=" + options.encoding,
      "--locale=" + options.locale,
      "--auth-local=peer",
      "--auth-host=scram-sha-256",
      fmt::format("--wal-segsize={}", options.wal_segment_size.value / base::kMiB)};
  if (options.data_checksums) {
    argv.push_back("--data-checksums");
  } else if (major >= 18) {
    argv.push_back("--no-data-checksums");
  }
  const std::string& provider_locale =
      options.provider_locale.empty() ? options.locale : options.provider_locale;
  if (!options.locale_provider.empty() && major >= 15) {
    argv.push_back("--locale-provider=" + options.locale_provider);
    if (options.locale_provider == "icu") argv.push_back("--icu-locale=" + provider_locale);
    if (options.locale_provider == "builtin") argv.push_back("--builtin-locale=" + provider_locale);
  }
  if (!options.wal_dir.empty()) argv.push_back("--waldir=" + options.wal_dir);
  if (!password_file.empty()) argv.push_back("--pwfile=" + password_file);
  return argv;
}

absl::Status RunInitdb(const InitdbOptions& options, const std::vector<std::string>& argv) {
  base::SubprocessOptions run;
  run.argv = argv;
  run.timeout = options.timeout;
  run.cancelled = options.cancelled;
  absl::StatusOr<base::SubprocessResult> result = base::RunSubprocess(run);
  if (!result.ok()) return base::Annotate(result.status(), "initdb");
  if (result->ok()) return absl::OkStatus();
  // initdb says what went wrong before it says that it cleans up.
  std::string reason = result->LastLine();
  for (size_t start = 0; start < result->standard_error.size();) {
    const size_t end =
        std::min(result->standard_error.find('\n', start), result->standard_error.size());
    const std::string line = result->standard_error.substr(start, end - start);
    start = end + 1;
    if (line.find("error:") != std::string::npos || line.find("FATAL:") != std::string::npos) {
      reason = line;
      break;
    }
  }
  // A short write is reported without an errno, with PostgreSQL's hint "Check free disk space."
  if (result->standard_error.find("No space left on device") != std::string::npos ||
      result->standard_error.find("Check free disk space") != std::string::npos) {
    return base::WithReason(
        base::Error(absl::StatusCode::kResourceExhausted,
                    "initdb: {}. HINT: free space on the disk of {}", reason, options.data_dir),
        {"NO_SPACE", {{"path", options.data_dir}}});
  }
  return base::Error(absl::StatusCode::kInternal, "initdb: {}", reason);
}

// Moves the finished directory's entries up; PG_VERSION, which makes it a data directory, last.
absl::Status MoveUp(const std::string& data_dir, const std::string& work) {
  METAL_ASSIGN_OR_RETURN(std::vector<std::string> names, base::ListDirectory(work));
  std::stable_partition(names.begin(), names.end(),
                        [](const std::string& name) { return name != "PG_VERSION"; });
  for (const std::string& name : names) {
    if (name == "PG_VERSION") METAL_RETURN_IF_ERROR(base::SyncDirectory(data_dir));
    METAL_RETURN_IF_ERROR(base::FaultPoint("pg.initdb_move"));
    const std::string from = base::JoinPath(work, name), to = base::JoinPath(data_dir, name);
    if (std::rename(from.c_str(), to.c_str()) != 0) return base::ErrnoStatus(errno, "rename", from);
  }
  if (rmdir(work.c_str()) != 0) return base::ErrnoStatus(errno, "remove directory", work);
  return base::SyncDirectory(data_dir);
}

absl::Status MakeCluster(Install& install, const InitdbOptions& options, const std::string& program,
                         int major) {
  const std::string work = base::JoinPath(options.data_dir, kWork);
  const std::string password_file =
      options.superuser_password.empty() ? "" : base::JoinPath(options.data_dir, kPasswordFile);
  if (!password_file.empty()) {
    METAL_RETURN_IF_ERROR(
        base::WriteFileDurably(password_file, options.superuser_password + "\n", 0600));
  }
  METAL_RETURN_IF_ERROR(base::FaultPoint("pg.initdb_run"));
  METAL_RETURN_IF_ERROR(
      RunInitdb(options, Arguments(options, program, major, work, password_file)));
  if (!password_file.empty() && unlink(password_file.c_str()) != 0) {
    return base::ErrnoStatus(errno, "remove", password_file);
  }
  METAL_RETURN_IF_ERROR(base::FaultPoint("pg.initdb_made"));
  METAL_RETURN_IF_ERROR(InstallManagedSettings(work, options.settings));
  METAL_RETURN_IF_ERROR(InstallManagedHba(work, options.hba));
  // A setting that this version does not accept shows here, not at the first start.
  METAL_RETURN_IF_ERROR(CheckSettings(install, work, options.data_dir, {}));
  METAL_RETURN_IF_ERROR(MoveUp(options.data_dir, work));
  METAL_RETURN_IF_ERROR(base::FaultPoint("pg.initdb_moved"));
  return RemoveIncompleteSentinel(options.data_dir);
}

// Empties a directory; missing is fine.
absl::Status RemoveContents(const std::string& path, const std::string& except = "") {
  const absl::StatusOr<std::vector<std::string>> names = base::ListDirectory(path);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (name != except) METAL_RETURN_IF_ERROR(base::RemoveTree(base::JoinPath(path, name)));
  }
  return absl::OkStatus();
}

// Value of the sentinel's line that starts with `key`; empty when there is none.
std::string Note(const std::string& sentinel, std::string_view key) {
  const size_t found = sentinel.find("\n" + std::string(key));
  if (found == std::string::npos) return "";
  const size_t start = found + 1 + key.size();
  return sentinel.substr(start, sentinel.find('\n', start) - start);
}

}  // namespace

absl::Status RemoveInitdbLeftovers(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, kIncompleteSentinel);
  const absl::StatusOr<std::string> sentinel = base::ReadFile(path, 64 * base::kKiB);
  if (absl::IsNotFound(sentinel.status())) return absl::OkStatus();
  if (!sentinel.ok()) return sentinel.status();
  if (sentinel->substr(0, sentinel->find('\n')) != kTask) {
    return base::Error(absl::StatusCode::kFailedPrecondition, "{} was not made by initdb: \"{}\"",
                       path, sentinel->substr(0, sentinel->find('\n')));
  }
  METAL_RETURN_IF_ERROR(RemoveContents(data_dir, kIncompleteSentinel));
  if (const std::string wal_dir = Note(*sentinel, kMadeWalNote); !wal_dir.empty()) {
    METAL_RETURN_IF_ERROR(base::RemoveTree(wal_dir));
  } else if (const std::string emptied = Note(*sentinel, kWalNote); !emptied.empty()) {
    METAL_RETURN_IF_ERROR(RemoveContents(emptied));
  }
  return RemoveIncompleteSentinel(data_dir);
}

absl::Status CreateDataDirectory(Install& install, const InitdbOptions& options) {
  METAL_ASSIGN_OR_RETURN(const std::string program, install.Program("initdb"));
  METAL_ASSIGN_OR_RETURN(const PostgresVersion version, install.Version());
  METAL_RETURN_IF_ERROR(CheckOptions(options, version.major()));
  METAL_ASSIGN_OR_RETURN(const DataDirectory found, InspectDataDirectory(options.data_dir));
  METAL_RETURN_IF_ERROR(CheckCreatable(found, geteuid()));
  METAL_RETURN_IF_ERROR(RemoveInitdbLeftovers(options.data_dir));
  METAL_RETURN_IF_ERROR(CheckWalDirectory(options.wal_dir));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(options.data_dir, 0700));
  if (chmod(options.data_dir.c_str(), 0700) != 0)
    return base::ErrnoStatus(errno, "chmod", options.data_dir);
  std::vector<std::string> notes;
  if (!options.wal_dir.empty()) {
    METAL_ASSIGN_OR_RETURN(const bool exists, base::Exists(options.wal_dir));
    notes.push_back(fmt::format("{}{}", exists ? kWalNote : kMadeWalNote, options.wal_dir));
  }
  METAL_RETURN_IF_ERROR(WriteIncompleteSentinel(options.data_dir, kTask, notes));
  absl::Status status = MakeCluster(install, options, program, version.major());
  if (status.ok()) return status;
  const absl::Status cleaned = RemoveInitdbLeftovers(options.data_dir);
  if (cleaned.ok() && found.kind == DataDirectoryKind::kMissing) rmdir(options.data_dir.c_str());
  if (!cleaned.ok()) {
    return base::Error(status.code(), "{}; its leftovers could not be removed: {}",
                       std::string(status.message()), std::string(cleaned.message()));
  }
  return status;
}

}  // namespace metal::pg
