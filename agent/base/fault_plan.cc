#include "agent/base/fault_plan.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <csignal>

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"

namespace metal::base {

bool FaultPlan::ParseRule(std::string_view text, Rule& rule) {
  const size_t at = text.find('@');
  if (at != std::string_view::npos) {
    const std::string_view number = text.substr(at + 1);
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), rule.at_pass);
    if (error != std::errc() || end != number.data() + number.size() || rule.at_pass < 1) {
      return false;
    }
    text = text.substr(0, at);
  }
  if (text == "crash") {
    rule.action = Action::kCrash;
  } else if (text == "error") {
    rule.action = Action::kError;
  } else if (text == "pause") {
    rule.action = Action::kPause;
    if (at == std::string_view::npos) rule.at_pass = 0;
  } else {
    return false;
  }
  return true;
}

FaultPlan::FaultPlan(std::string_view points, std::string pause_file, std::string trace_file)
    : pause_file_(std::move(pause_file)), trace_file_(std::move(trace_file)) {
  while (!points.empty()) {
    const size_t end = std::min(points.find(';'), points.size());
    const std::string_view entry = points.substr(0, end);
    points.remove_prefix(std::min(end + 1, points.size()));
    const size_t equals = entry.find('=');
    Rule rule{};
    if (equals == std::string_view::npos || equals == 0 ||
        !ParseRule(entry.substr(equals + 1), rule)) {
      if (!entry.empty()) LogWarning("fault point \"{}\" cannot be read: left out", entry);
      continue;
    }
    rules_.emplace(entry.substr(0, equals), rule);
  }
}

void FaultPlan::Trace(const std::string& name) {
  if (!traced_.insert(name).second) return;
  auto fd = OpenFile(trace_file_, O_WRONLY | O_CREAT | O_APPEND, 0644);
  absl::Status status = fd.ok() ? WriteAll(fd->get(), name + "\n", trace_file_) : fd.status();
  if (!status.ok()) LogWarning("fault trace: {}", std::string(status.message()));
}

void FaultPlan::WaitForRemovalOfPauseFile() const {
  while (!pause_file_.empty() && PathExists(pause_file_)) {
    RealClock().Sleep(absl::Milliseconds(5));
  }
}

absl::Status FaultPlan::Pass(std::string_view name) {
  Action action;
  {
    MutexLock lock(mutex_);
    if (!trace_file_.empty()) Trace(std::string(name));
    const auto found = rules_.find(name);
    if (found == rules_.end()) return absl::OkStatus();
    Rule& rule = found->second;
    if (++rule.passes != rule.at_pass && rule.at_pass != 0) return absl::OkStatus();
    action = rule.action;
  }
  switch (action) {
    case Action::kCrash:
      kill(getpid(), SIGKILL);
      pause();  // the signal is on its way
      break;
    case Action::kError:
      return Error(absl::StatusCode::kInternal, "fault point {}", name);
    case Action::kPause:
      WaitForRemovalOfPauseFile();
      break;
  }
  return absl::OkStatus();
}

}  // namespace metal::base
