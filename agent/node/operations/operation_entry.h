// What OperationManager keeps of one operation beside its visible state. Internal to
// operations*.cc. Threading: guarded by the manager's mutex, except name, spec, body and progress,
// which do not change while the operation's thread runs.
#pragma once

#include <memory>

#include "agent/base/thread.h"
#include "agent/node/operations/action_lock.h"
#include "agent/node/operations/operation.h"
#include "agent/node/operations/operations.h"
#include "agent/observe/progress.h"

namespace metal::node {

// Added to the parameters of an operation that was resumed after a crash, so in the journal and for
// people to see. An orderly end of the agent takes it out again.
inline constexpr const char* kResumedParameter = "resumed";

struct OperationManager::Entry {
  Operation operation;
  OperationBody body;
  std::unique_ptr<observe::Progress> progress;  // null: of an earlier process, or settled
  ActionLock::Holder action;                    // held while a kAction operation is unfinished
  base::Thread thread;
  bool resumed = false;
  bool admitted = false;   // journaled: the body may start
  bool abandoned = false;  // the caller of Start gave up before it was journaled
  absl::Status refusal;    // why it was not journaled
  bool live() const { return progress != nullptr; }
};

}  // namespace metal::node
