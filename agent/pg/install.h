// Install: the PostgreSQL programs in one directory.
// Threading: thread-safe. Version() runs `postgres --version` once for each replaced program file.
#pragma once

#include <ctime>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/base/mutex.h"

namespace metal::pg {

struct PostgresVersion {
  int number = 0;    // as server_version_num: 150018
  std::string text;  // "15.18"
  int major() const { return number / 10000; }
};

inline constexpr int kOldestMajor = 13;
inline constexpr int kNewestMajor = 18;

// From "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"; also "19beta1", "18devel".
// INVALID_ARGUMENT otherwise.
absl::StatusOr<PostgresVersion> ParsePostgresVersion(std::string_view output);

class Install {
 public:
  explicit Install(std::string bin_dir);

  const std::string& bin_dir() const { return bin_dir_; }
  // Path of a program, checked to be an executable file. NOT_FOUND (reason BINARIES_MISSING) with a
  // HINT otherwise.
  absl::StatusOr<std::string> Program(std::string_view name) const;
  // Version of `postgres`. FAILED_PRECONDITION (reason VERSION_UNSUPPORTED) outside 13–18.
  absl::StatusOr<PostgresVersion> Version();

 private:
  const std::string bin_dir_;
  base::Mutex mutex_;
  PostgresVersion cached_ ABSL_GUARDED_BY(mutex_);
  uint64_t cached_inode_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: nothing cached
  timespec cached_mtime_ ABSL_GUARDED_BY(mutex_) = {};
};

}  // namespace metal::pg
