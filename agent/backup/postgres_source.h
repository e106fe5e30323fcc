// The BackupSource of a real server: pg::BackupSession on a connection of its own, kept for the
// whole backup. Threading: see source.h.
#pragma once

#include "agent/backup/backup.h"
#include "agent/pg/session.h"

namespace metal::backup {

// Connects with `options`, but without statement and lock timeouts: the start checkpoint may take
// long.
SourceFactory MakePostgresSource(pg::ConnectOptions options);

}  // namespace metal::backup
