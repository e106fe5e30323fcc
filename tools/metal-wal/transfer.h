// The work of metal-wal: hand a descriptor to the agent, wait for its answer. Single-threaded;
// blocks up to the timeout.
#pragma once

#include "tools/metal-wal/options.h"

namespace metal::wal {

// Both answer an exit code and have printed what went wrong to standard error; kNotFound is silent.
ExitCode Push(const Options& options);
// PATH is complete and new when this answers kDone; otherwise it was not touched. Not fsynced:
// PostgreSQL does that itself for what it keeps.
ExitCode Fetch(const Options& options);

}  // namespace metal::wal
