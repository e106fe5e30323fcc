// The lease guard: a small process that ends the server of a primary whose lease ran out, also when
// the agent is frozen, dead or replaced. It reads one word of the lease page and kills at that
// time: whoever renews moves the word, so a restart or an upgrade of the agent within the lease
// needs no handover. It touches no disk and no SQL once it watches, and ends by itself when the
// lease is gone or has run out. Threading: RunLeaseGuard is a process's main; StartLeaseGuard
// blocks, from any thread.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/pg/lease_page.h"
#include "agent/pg/process.h"

namespace metal::pg {

// Starts `<this program> --lease-guard PAGE DATA_DIR BIN_DIR` as nobody's child and waits until it
// watches. OK when one does already. REQUIRES: the page is armed, else the guard ends at once and
// this is DEADLINE_EXCEEDED.
absl::Status StartLeaseGuard(const LeasePage& page, const std::string& page_path,
                             const PostmasterPlace& place, const std::string& log_path,
                             base::Clock& clock);

// Watches until the lease is disarmed (then answers 0) or its time has come: then ends every
// process that works as a server on the data directory with SIGKILL, found through /proc and
// signalled through pidfds, until none is left or 10 s have passed. 1: the page cannot be used.
int RunLeaseGuard(const std::string& page_path, PostmasterPlace place, base::Clock& clock);

}  // namespace metal::pg
