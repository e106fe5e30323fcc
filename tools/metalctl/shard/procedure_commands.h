// `metalctl shard reparent`, `failover` and `recover`. Threading: one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tools/metalctl/cli_commands.h"
#include "tools/metalctl/shard/shard_config.h"

namespace metal::shard {

// Makes a command that reads the shard's file before `action` runs with it.
using ShardAction = std::function<int(const ctl::Client&, const ShardConfig&)>;
using OnShardFile = std::function<void(CLI::App* command, ShardAction action)>;

void AddProcedureCommands(CLI::App* shard, const OnShardFile& on_shard);

// Prints an error that is no call's, and gives the exit code for it.
int FailWith(const ctl::Client& client, const absl::Status& status);

}  // namespace metal::shard
