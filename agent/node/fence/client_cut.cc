#include "agent/node/fence/client_cut.h"

#include <unistd.h>

#include <string_view>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::node {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(1);
constexpr absl::Duration kAgain = absl::Seconds(10);
constexpr absl::Duration kAllowPatience = absl::Seconds(5);

std::string TextOf(const host::Destroyed& destroyed, std::string_view which = "") {
  std::string text = fmt::format("destroyed {} connections{}", destroyed.count, which);
  if (!destroyed.first_error.empty()) text += ", not all: " + destroyed.first_error;
  return text;
}

}  // namespace

absl::Status ClientCut::Refuse() {
  // First: rules without a mark would outlive the fence.
  METAL_RETURN_IF_ERROR(base::WriteFileDurably(mark_, fmt::format("{}\n", port_)));
  METAL_RETURN_IF_ERROR(helper_->RefuseConnections(port_, kPatience));
  refused_ = true;
  return absl::OkStatus();
}

absl::Status ClientCut::Allow() {
  METAL_RETURN_IF_ERROR(helper_->AllowConnections(port_, kAllowPatience));
  ::unlink(mark_.c_str());  // left: they are allowed once more
  refused_ = false;
  return absl::OkStatus();
}

std::string ClientCut::Cut(const std::vector<pid_t>& spared) {
  if (helper_ == nullptr) return "";
  absl::Status refused;
  {
    base::MutexLock lock(mutex_);
    refused = Refuse();
    if (!refused.ok()) failed_ = clock_.Monotonic();
  }
  std::string done = refused.ok() ? fmt::format("refuses new connections to port {}", port_)
                                  : fmt::format("does not refuse new connections to port {}: {}",
                                                port_, std::string(refused.message()));
  const auto destroyed = helper_->DestroyConnections(port_, spared, kPatience);
  done += destroyed.ok() ? "; " + TextOf(*destroyed)
                         : fmt::format("; did not destroy connections: {}",
                                       std::string(destroyed.status().message()));
  return done;
}

std::string ClientCut::DestroyRest() {
  if (helper_ == nullptr) return "";
  const auto destroyed = helper_->DestroyConnections(port_, {}, kPatience);
  if (!destroyed.ok() || destroyed->count == 0) return "";
  return TextOf(*destroyed, " that were left");
}

void ClientCut::Keep(FenceCause cause) {
  if (helper_ == nullptr) return;
  base::MutexLock lock(mutex_);
  const bool cut_before = refused_.value_or(base::PathExists(mark_));
  const bool fenced = cause == FenceCause::kDisk || (cause == FenceCause::kOther && cut_before);
  if (!cut_before && !fenced) refused_ = false;
  if (refused_ == fenced) return;
  if (failed_ && clock_.Monotonic() - *failed_ < kAgain) return;
  const absl::Status done = fenced ? Refuse() : Allow();
  failed_.reset();
  if (done.ok()) return;
  failed_ = clock_.Monotonic();
  // Here it is not possible, and a later try will not change that.
  if (absl::IsUnimplemented(done)) {
    refused_ = fenced;
    if (!fenced) ::unlink(mark_.c_str());
    return;
  }
  base::LogWarning("event=client_cut message=\"{}\"", done.ToString());
}

}  // namespace metal::node
