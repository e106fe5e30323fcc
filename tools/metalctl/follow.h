// Follows an operation to its end: a progress bar on a terminal, plain lines elsewhere, nothing
// with -o json. Ctrl-C on a terminal asks whether to cancel the operation or to leave it running;
// without a terminal it leaves it running. Threading: the calling thread; installs a SIGINT handler
// while it runs.
#pragma once

#include <string>

#include "tools/metalctl/client.h"

namespace metal::ctl {

struct FollowOptions {
  bool detach = false;  // print the name and return at once
};

// Exit code: 0 when it succeeded; otherwise the operation's error as ExitCodeOf, after printing it.
// Fills *operation.
int FollowOperation(const Client& client, v1::Operation* operation, const FollowOptions& options);

// One line: bar, percent, done of total, rate, ETA. `width`: columns of the terminal.
std::string ProgressLine(const v1::Operation& operation, int width);

}  // namespace metal::ctl
