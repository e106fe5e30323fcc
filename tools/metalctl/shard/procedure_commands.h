// `metalctl shard reparent`, `failover` and `recover`. Threading: one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "tools/metalctl/cli_commands.h"
#include "tools/metalctl/shard/procedure.h"
#include "tools/metalctl/shard/shard_config.h"

namespace metal::shard {

// Makes a command that reads the shard's file before `action` runs with it.
using ShardAction = std::function<int(const ctl::Client&, const ShardConfig&)>;
using OnShardFile = std::function<void(CLI::App* command, ShardAction action)>;

void AddProcedureCommands(CLI::App* shard, const OnShardFile& on_shard);

// Runs one procedure and tells how it went. `whole`: a node that is left behind is a failure.
// Returns the exit code.
using ProcedureBody = std::function<absl::Status(Procedure& procedure)>;
int RunProcedure(const ctl::Client& client, const ShardConfig& config, std::string_view name,
                 bool whole, const ProcedureBody& body);

// Prints an error that is no call's, and gives the exit code for it.
int FailWith(const ctl::Client& client, const absl::Status& status);

}  // namespace metal::shard
