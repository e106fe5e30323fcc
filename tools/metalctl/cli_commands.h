// Building blocks of the tree of commands, and the functions that add its branches. Threading: one
// thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "tools/metalctl/client.h"
#include "tools/metalctl/commands.h"

namespace metal::ctl {

// What the command line gives; `run` is set by the command that was chosen. Outlives the CLI::App.
struct Invocation {
  ClientOptions client;
  std::string output = "table";
  std::function<int(const Client&)> run;
  // Names for completion that no agent is asked for, by their kind.
  std::map<std::string, std::function<std::vector<std::string>()>> names;
};

// A command with one or more examples, one a line, each without "metalctl ".
CLI::App* AddCommand(CLI::App* parent, const std::string& name, const std::string& what,
                     const std::string& examples);
// A command that only holds others; `group`: its heading in metalctl --help.
CLI::App* AddFamily(CLI::App& app, const std::string& name, const std::string& what,
                    const std::string& group);

// Registers `action` as what the command does. Options live in a shared_ptr until then.
template <typename Action>
void OnRun(CLI::App* command, Invocation& invocation, Action action) {
  command->final_callback([&invocation, action] { invocation.run = action; });
}

// A length of time; see ParseDuration.
CLI::Option* AddDuration(CLI::App* command, const std::string& name, absl::Duration* out,
                         const std::string& what);
// "--rate": a size for each second.
void AddRate(CLI::App* command, uint64_t* out, const std::string& what);
// "name=value" pairs, repeatable.
void AddPairs(CLI::App* command, const std::string& name, std::map<std::string, std::string>* out,
              const std::string& what);
void AddDetach(CLI::App* command, FollowOptions* follow);

// The branches. cli_node.cc:
void AddObserveCommands(CLI::App& app, Invocation& invocation);
void AddOperationCommands(CLI::App& app, Invocation& invocation);
void AddDiskCommands(CLI::App& app, Invocation& invocation);
// cli_postgres.cc:
void AddPostgresCommands(CLI::App& app, Invocation& invocation);
void AddRoleCommands(CLI::App& app, Invocation& invocation);
// cli_replication.cc:
void AddReplicationCommands(CLI::App& app, Invocation& invocation);
// cli_gate.cc:
void AddGateCommands(CLI::App& app, Invocation& invocation);
// cli_clone.cc:
void AddCloneCommand(CLI::App& app, Invocation& invocation);
// cli_backup.cc:
void AddBackupCommands(CLI::App& app, Invocation& invocation);

}  // namespace metal::ctl
