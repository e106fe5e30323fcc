// `metalctl shard …`: the branch of the command line for a whole shard. Threading: one thread.
#pragma once

#include "tools/metalctl/cli_commands.h"

namespace metal::shard {

// Adds the branch. What stands in the shard's file is read when a command runs.
void AddShardCommands(CLI::App& app, ctl::Invocation& invocation);

}  // namespace metal::shard
