// The command line: one tree of commands, from which come parsing, --help and shell completion.
// Threading: one thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "tools/metalctl/client.h"

namespace metal::ctl {

// Parses and runs; returns the exit code.
int RunCommandLine(int argc, char** argv);

// Completion script for "bash" or "zsh", made from the tree of commands.
std::string CompletionScript(const CLI::App& app, const std::string& shell);

}  // namespace metal::ctl
