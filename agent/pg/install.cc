#include "agent/pg/install.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"

namespace metal::pg {

absl::StatusOr<PostgresVersion> ParsePostgresVersion(std::string_view output) {
  constexpr std::string_view kPrefix = "postgres (PostgreSQL) ";
  const auto bad = [&] {
    return base::Error(absl::StatusCode::kInvalidArgument, "\"{}\" is no version of postgres",
                       output.substr(0, 80));
  };
  if (!output.starts_with(kPrefix)) return bad();
  std::string_view text = output.substr(kPrefix.size());
  text = text.substr(0, text.find_first_of(" \n"));
  int major = 0;
  const char* const end = text.data() + text.size();
  auto [next, error] = std::from_chars(text.data(), end, major);
  if (error != std::errc() || major < 10 || major > 999) return bad();
  int minor = 0;
  if (next != end && *next == '.') {
    const auto parsed = std::from_chars(next + 1, end, minor);
    if (parsed.ec != std::errc() || minor < 0 || minor > 9999) return bad();
  }
  // "19beta1" and "18devel" count as minor 0, as server_version_num does.
  return PostgresVersion{major * 10000 + minor, std::string(text)};
}

Install::Install(std::string bin_dir) : bin_dir_(std::move(bin_dir)) {}

absl::StatusOr<std::string> Install::Program(std::string_view name) const {
  std::string path = base::JoinPath(bin_dir_, name);
  struct stat info;
  std::string problem;
  if (stat(path.c_str(), &info) != 0) {
    problem = errno == ENOENT || errno == ENOTDIR ? "is not installed" : "cannot be read";
  } else if (!S_ISREG(info.st_mode) || access(path.c_str(), X_OK) != 0) {
    problem = "is not an executable file";
  } else {
    return path;
  }
  return base::WithReason(
      base::Error(
          absl::StatusCode::kNotFound,
          "program {} {}. HINT: install PostgreSQL's server package, or set [postgres] bin_dir",
          path, problem),
      {"BINARIES_MISSING", {{"path", path}}});
}

absl::StatusOr<PostgresVersion> Install::Version() {
  METAL_ASSIGN_OR_RETURN(const std::string program, Program("postgres"));
  struct stat info;
  if (stat(program.c_str(), &info) != 0) return base::ErrnoStatus(errno, "stat", program);
  base::MutexLock lock(mutex_);
  if (cached_inode_ != 0 && cached_inode_ == info.st_ino &&
      cached_mtime_.tv_sec == info.st_mtim.tv_sec &&
      cached_mtime_.tv_nsec == info.st_mtim.tv_nsec) {
    return cached_;
  }
  base::SubprocessOptions options;
  options.argv = {program, "--version"};
  options.timeout = absl::Seconds(10);
  METAL_ASSIGN_OR_RETURN(const base::SubprocessResult result, base::RunSubprocess(options));
  if (!result.ok()) {
    return base::Error(absl::StatusCode::kFailedPrecondition, "{} --version: exit code {}: {}",
                       program, result.exit_code, result.LastLine());
  }
  METAL_ASSIGN_OR_RETURN(PostgresVersion version, ParsePostgresVersion(result.standard_output));
  if (version.major() < kOldestMajor || version.major() > kNewestMajor) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "{} is version {}; supported are {} to {}. HINT: set [postgres] bin_dir",
                    program, version.text, kOldestMajor, kNewestMajor),
        {"VERSION_UNSUPPORTED", {{"version", version.text}}});
  }
  cached_ = version;
  cached_inode_ = info.st_ino;
  cached_mtime_ = info.st_mtim;
  return version;
}

}  // namespace metal::pg
