#include "agent/node/fence/sick_server.h"

#include <algorithm>
#include <csignal>

#include "agent/base/log.h"
#include "agent/node/emit.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace metal::node {
namespace {

constexpr absl::Duration kImmediate = absl::Seconds(2);         // then it is killed
constexpr absl::Duration kKillPatience = absl::Seconds(1);      // of the helper
constexpr absl::Duration kSurvivorPatience = absl::Seconds(1);  // for what was killed to end
constexpr absl::Duration kLookAgain = absl::Milliseconds(100);
constexpr size_t kNamed = 8;

}  // namespace

std::optional<SickServer::Identity> SickServer::IdentityOf(pid_t pid) {
  const auto stat = base::ReadProcStat(pid);
  if (!stat.ok()) return std::nullopt;
  return Identity{pid, stat->start_ticks};
}

void SickServer::Begin(const observe::Fault& fault,
                       std::shared_ptr<const pg::Postmaster> postmaster) {
  base::MutexLock lock(mutex_);
  if (server_ && server_->postmaster->pid() == postmaster->pid()) return;
  // What enforces the fence comes again and again while one hangs in the disk.
  if (told_ && told_ == IdentityOf(postmaster->pid())) return;
  server_ = Server{.fault = fault,
                   .postmaster = postmaster,
                   .family = pg::ListFamily(postmaster->pid()),
                   .begin = parts_.clock.Monotonic(),
                   .due = parts_.clock.Monotonic() + kImmediate};
  const absl::Status signalled = postmaster->Signal(SIGQUIT);
  if (!signalled.ok() && !absl::IsNotFound(signalled)) {
    base::LogWarning("event=sick_server message=\"{}\"", signalled.ToString());
  }
}

void SickServer::Look() {
  base::MutexLock lock(mutex_);
  if (!server_) return;
  const bool due = parts_.clock.Monotonic() >= server_->due;
  const bool ended = !server_->postmaster->alive() && pg::StillThere(server_->family).empty();
  if (!due && !ended) return;
  if (!ended && !server_->killed) {
    Kill(*server_);
    server_->killed = true;
    server_->due = parts_.clock.Monotonic() + kSurvivorPatience;
    return;
  }
  told_ = IdentityOf(server_->postmaster->pid());
  parts_.note(server_->fault, Tell(*server_));
  server_.reset();
}

absl::Duration SickServer::NextLook() {
  base::MutexLock lock(mutex_);
  return server_ ? kLookAgain : absl::InfiniteDuration();
}

bool SickServer::ending() {
  base::MutexLock lock(mutex_);
  return server_.has_value();
}

void SickServer::Kill(const Server& server) {
  const pid_t postmaster = server.postmaster->pid();
  const absl::Status killed =
      parts_.helper == nullptr ? absl::UnimplementedError("no privileged helper")
                               : parts_.helper->KillServer(postmaster, parts_.port, kKillPatience);
  // Without a group one by one, the postmaster too: what it began since Begin ends without it.
  if (killed.ok()) return;
  base::LogInfo("event=sick_server message=\"killed one by one: {}\"",
                std::string(killed.message()));
  (void)server.postmaster->Signal(SIGKILL);
  pg::KillProcesses(server.family);
}

std::string SickServer::Tell(const Server& server) {
  const absl::Duration took = parts_.clock.Monotonic() - server.begin;
  const std::vector<base::ProcStat> left = pg::StillThere(server.family);
  const std::string how = server.killed ? "killed" : "stopped";
  const std::string milliseconds = fmt::format("{}", absl::ToInt64Milliseconds(took));
  std::string done = how + " PostgreSQL";
  if (left.empty()) done += fmt::format(" within {} ms", milliseconds);
  const std::string rest = parts_.cut.DestroyRest();
  if (!rest.empty()) done += "; " + rest;
  if (left.empty()) {
    Emit(parts_.events, observe::Severity::kWarning, "disk.server_down", server.fault.subject, done,
         {{"how", how}, {"duration_ms", milliseconds}});
    return done;
  }
  std::vector<std::string> names;
  for (const base::ProcStat& each : left) {
    if (names.size() == kNamed) break;
    names.push_back(fmt::format("{} ({})", each.pid, each.state));
  }
  const std::string text =
      fmt::format("{} of its processes have not ended: {}", left.size(), fmt::join(names, ", "));
  Emit(parts_.events, observe::Severity::kCritical, "disk.survivors", server.fault.subject,
       fmt::format("PostgreSQL was killed, and {}. HINT: those in state D hang in the disk: reboot "
                   "the host before the disk is used again",
                   text),
       {{"processes", fmt::format("{}", left.size())}, {"duration_ms", milliseconds}});
  return done + "; " + text;
}

}  // namespace metal::node
