// Console: PgBouncer's admin console over its unix socket. The seam for tests. Only PgBouncer's own
// OS user reaches it: the socket lies in a directory of mode 0700, and PgBouncer lets a peer of its
// own uid in as "pgbouncer". The console speaks the simple protocol alone. Threading: one thread at
// a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace metal::gate {

struct ConsoleRows {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;  // NULL is ""

  std::string Text(size_t row, std::string_view column) const;  // "" when there is none
  int64_t Number(size_t row, std::string_view column) const;    // 0 when it is none
};

struct ConsoleWait {
  absl::Duration timeout = absl::Seconds(1);
  std::function<bool()> interrupted = {};  // polled every few milliseconds; may be empty
};

class Console {
 public:
  virtual ~Console() = default;
  // Runs one command: PAUSE, RESUME, RELOAD, RECONNECT, SHOW. FAILED_PRECONDITION: PgBouncer
  // refused it, in its own words. DEADLINE_EXCEEDED, CANCELLED (interrupted) and UNAVAILABLE
  // (lost): the console is closed, and whether the command has an effect is not known.
  virtual absl::StatusOr<ConsoleRows> Run(const std::string& command, const ConsoleWait& wait) = 0;
  virtual bool connected() const = 0;
};

// Connects within the timeout. UNAVAILABLE: nobody listens; DEADLINE_EXCEEDED: somebody listens and
// does not answer.
using ConsoleFactory =
    std::function<absl::StatusOr<std::unique_ptr<Console>>(absl::Duration timeout)>;

// Over libpq. `socket_dir` and `port` name the unix socket.
ConsoleFactory LibpqConsoles(std::string socket_dir, int port);

}  // namespace metal::gate
