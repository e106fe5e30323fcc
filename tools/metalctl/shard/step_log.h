// What a procedure did, step by step, as it runs: a line for each step when it ends, or one JSON
// object a line. Threading: thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace metal::shard {

struct StepRecord {
  std::string name;   // stable: "begin_term"
  std::string nodes;  // "b, c"; empty: the shard
  absl::Duration took;
  std::string error;  // empty: it succeeded
  std::string result;
};

class StepLog {
 public:
  virtual ~StepLog() = default;
  virtual void Begin(std::string_view name, std::string_view nodes) = 0;
  virtual void End(const StepRecord& step) = 0;
  // A word beside the steps: what was found, what is left to do.
  virtual void Note(std::string_view text) = 0;
};

// For people, on standard output: "promote        b      0.18 s  timeline 4". On a terminal the
// step that runs is shown too.
class TextStepLog : public StepLog {
 public:
  explicit TextStepLog(bool terminal) : terminal_(terminal) {}
  void Begin(std::string_view name, std::string_view nodes) override;
  void End(const StepRecord& step) override;
  void Note(std::string_view text) override;

 private:
  const bool terminal_;
};

// For programs, on standard error, one object a line: {"step":{"name","nodes","state":"started"}},
// {"step":{"name","nodes","state":"done"|"failed","seconds","result","error"}},
// {"note":{"message"}}.
class JsonStepLog : public StepLog {
 public:
  void Begin(std::string_view name, std::string_view nodes) override;
  void End(const StepRecord& step) override;
  void Note(std::string_view text) override;
};

}  // namespace metal::shard
