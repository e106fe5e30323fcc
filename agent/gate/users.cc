#include "agent/gate/users.h"

#include <utility>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"

namespace metal::gate {
namespace {

constexpr absl::Duration kFirstInterval = absl::Milliseconds(300);

}  // namespace

UserFile::UserFile(Options options) : options_(std::move(options)) {}

UserFile::~UserFile() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
}

absl::Status UserFile::Start() {
  auto text = base::ReadFile(options_.path);
  if (absl::IsNotFound(text.status())) {
    METAL_RETURN_IF_ERROR(base::WriteFileDurably(options_.path, "", 0600));
    text = std::string();
  }
  if (!text.ok()) return text.status();
  last_ = *std::move(text);
  thread_ = base::Thread("gate-users", [this] { Run(); });
  return absl::OkStatus();
}

absl::StatusOr<bool> UserFile::Refresh() {
  METAL_ASSIGN_OR_RETURN(const std::vector<RoleSecret> roles, options_.read());
  std::string text = RenderUsers(roles, options_.without_password);
  if (text == last_) return false;
  METAL_RETURN_IF_ERROR(base::WriteFileDurably(options_.path, text, 0600));
  last_ = std::move(text);
  return true;
}

void UserFile::Run() {
  bool read_once = false, complained = false;
  while (true) {
    const absl::StatusOr<bool> changed = Refresh();
    if (changed.ok() && *changed) {
      ++revision_;
      options_.changed();
    }
    // A server that is down is no news; it is not asked often enough for the log to grow.
    if (!changed.ok() && !absl::IsUnavailable(changed.status()) && !complained)
      base::LogWarning("event=gate.users message=\"{}\"", changed.status().ToString());
    complained = !changed.ok();
    read_once = read_once || changed.ok();
    base::MutexLock lock(mutex_);
    wake_.WaitFor(mutex_, read_once ? options_.interval : kFirstInterval,
                  [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_; });
    if (stopping_) return;
  }
}

}  // namespace metal::gate
