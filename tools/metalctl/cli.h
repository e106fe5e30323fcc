// The command line: one tree of commands, from which come parsing, --help and completion.
// Threading: one thread.
#pragma once

#include <vector>

#include "tools/metalctl/cli_commands.h"

namespace metal::ctl {

// Adds a branch that is no part of this library.
using AddBranch = void (*)(CLI::App& app, Invocation& invocation);

// Parses and runs; returns the exit code.
int RunCommandLine(int argc, char** argv, const std::vector<AddBranch>& more);

}  // namespace metal::ctl
