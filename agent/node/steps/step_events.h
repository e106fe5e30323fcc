// Each step of a change of roles is an event with its duration: people ask which one took so long.
// Threading: one thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "agent/base/clock.h"
#include "agent/node/emit.h"
#include "agent/node/role_answers.h"
#include "agent/node/terms/term_record.h"
#include "fmt/format.h"

namespace metal::node {

class StepEvents {
 public:
  // `change`: "demotion" emits events "demotion.step". The first step begins now. All outlive this.
  StepEvents(std::string change, base::Clock& clock, observe::EventLog& events,
             const TermHolder& holder)
      : change_(std::move(change)),
        clock_(clock),
        events_(events),
        holder_(holder),
        start_(clock.Monotonic()) {}

  // The step that began when the last one was done.
  void Done(const std::string& step, std::map<std::string, std::string> attributes = {}) {
    Say(observe::Severity::kInfo, step, "took", "", std::move(attributes));
  }

  // The same of a step that did not succeed, with attribute "error". Returns `why`.
  absl::Status Failed(const std::string& step, const absl::Status& why) {
    const std::string error(why.message());
    Say(observe::Severity::kWarning, step, "failed after", ": " + error, {{"error", error}});
    return why;
  }

 private:
  void Say(observe::Severity severity, const std::string& step, std::string_view verb,
           const std::string& end, std::map<std::string, std::string> attributes) {
    const base::MonotonicTime now = clock_.Monotonic();
    const absl::Duration took = now - start_;
    start_ = now;
    attributes["step"] = step;
    attributes["duration_ms"] = fmt::format("{}", absl::ToInt64Milliseconds(took));
    Emit(events_, severity, change_ + ".step", TermSubject(holder_),
         fmt::format("{}: {} {} {}{}", change_, step, verb,
                     absl::FormatDuration(absl::Trunc(took, absl::Milliseconds(1))), end),
         std::move(attributes));
  }

  const std::string change_;
  base::Clock& clock_;
  observe::EventLog& events_;
  const TermHolder& holder_;
  base::MonotonicTime start_;
};

}  // namespace metal::node
