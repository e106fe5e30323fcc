// Makes a new data directory: initdb, the managed settings and the managed HBA block.
// A killed run leaves a directory with the sentinel of data_directory.h, which cannot be started;
// the next run removes it. Everything is made in <data_dir>/metal.initdb and moved up at the end,
// PG_VERSION last: works on a mount point too. Threading: one call at a time for each directory.
// Blocks for seconds.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/units.h"
#include "agent/pg/hba.h"
#include "agent/pg/install.h"
#include "agent/pg/settings.h"

namespace metal::pg {

struct InitdbOptions {
  std::string data_dir;
  std::string wal_dir;  // initdb --waldir; empty: inside the data directory
  std::string superuser = "postgres";
  std::string superuser_password;  // empty: none; SCRAM verifier is made by initdb
  std::string encoding = "UTF8";
  std::string locale = "C.UTF-8";
  std::string locale_provider;  // "libc", "icu" (15+), "builtin" (17+); empty: initdb's default
  std::string provider_locale;  // --icu-locale or --builtin-locale; empty: `locale`
  base::ByteCount wal_segment_size{16 * base::kMiB};
  bool data_checksums = true;
  AgentSettings settings;
  HbaOptions hba;
  absl::Duration timeout = absl::Minutes(10);
  std::function<bool()> cancelled = {};  // polled; may be empty
};

// Errors: those of CheckCreatable; INVALID_ARGUMENT for options that this version does not have;
// RESOURCE_EXHAUSTED on a full disk; INTERNAL with initdb's own last line. After an error the
// directory is as it was before (empty or missing).
absl::Status CreateDataDirectory(Install& install, const InitdbOptions& options);

// Removes what a killed CreateDataDirectory left, and only that: the sentinel's task must be
// "initdb". OK when there is nothing.
absl::Status RemoveInitdbLeftovers(const std::string& data_dir);

}  // namespace metal::pg
