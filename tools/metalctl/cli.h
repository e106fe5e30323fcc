// The command line: one tree of commands, from which come parsing, --help and completion.
// Threading: one thread.
#pragma once

namespace metal::ctl {

// Parses and runs; returns the exit code.
int RunCommandLine(int argc, char** argv);

}  // namespace metal::ctl
