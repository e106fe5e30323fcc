// What every backup operation is given from outside: configuration, time, progress, events, the I/O
// engine's maker. Threading: used by the operation's thread; everything referred to outlives the
// call.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "agent/base/clock.h"
#include "agent/base/config.h"
#include "agent/base/throttle.h"
#include "agent/observe/emit.h"
#include "agent/observe/event_log.h"
#include "agent/observe/progress.h"
#include "agent/uring/io_engine.h"

namespace metal::backup {

class MemoryBudget;
class WalArchive;

// Makes the engine of one operation; tests pass one that fails at a chosen request.
using EngineFactory =
    std::function<absl::StatusOr<uring::EngineChoice>(uring::EngineKind kind, uint32_t depth)>;

struct OperationContext {
  const base::AgentConfig& config;
  base::Clock& clock;
  observe::Progress& progress;
  observe::EventLog* events = nullptr;  // may be null
  WalArchive* wal_archive =
      nullptr;  // of config.repository_path; null: WAL is neither waited for nor checked
  EngineFactory make_engine = uring::MakeEngine;
  // True: the agent ends and nothing may take long any more. May be empty.
  std::function<bool()> agent_ends = {};
  MemoryBudget* memory = nullptr;  // of all operations together; null: config.backup_memory alone
  // Of all that read the data directory together; null: each has its own limit alone.
  base::Throttle* throttle = nullptr;
};

// Appends an event about `subject` when the context has a log.
inline void EmitEvent(const OperationContext& context, observe::Severity severity, std::string type,
                      std::string subject, std::string message) {
  if (context.events == nullptr) return;
  observe::Emit(*context.events, severity, std::move(type), std::move(subject), std::move(message));
}

}  // namespace metal::backup
