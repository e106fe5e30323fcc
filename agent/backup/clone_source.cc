#include "agent/backup/clone_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include "agent/backup/tablespace_list.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/pg/control_file.h"
#include "agent/pg/data_directory.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kRemember = absl::Seconds(60);
constexpr absl::Duration kControlPatience = absl::Minutes(10);  // between Welcome and Begin

uint8_t Type(CloneMessage message) { return static_cast<uint8_t>(message); }

absl::Status Say(transfer::Channel& channel, CloneMessage type, const std::string& body) {
  return channel.WriteMessage(Type(type), 0, body);
}

// The next message that is not just a sign of life.
absl::StatusOr<transfer::Channel::Received> Hear(transfer::Channel& channel, base::Clock& clock) {
  const base::MonotonicTime deadline = clock.Monotonic() + kControlPatience;
  while (true) {
    METAL_ASSIGN_OR_RETURN(auto received, channel.ReadMessage());
    if (received.header.payload_length != 0) {
      return base::Error(absl::StatusCode::kDataLoss, "the caller sent bulk data");
    }
    if (received.header.type != Type(CloneMessage::kAlive)) return received;
    if (clock.Monotonic() >= deadline) return absl::DeadlineExceededError("the caller hesitates");
  }
}

absl::Status Unexpected(const transfer::MessageHeader& header) {
  return base::Error(absl::StatusCode::kDataLoss,
                     "message {} is out of place. HINT: run the same metal-agent on both nodes",
                     header.type);
}

}  // namespace

absl::StatusOr<std::string> ReadBootId() {
  METAL_ASSIGN_OR_RETURN(std::string id, base::ReadFile("/proc/sys/kernel/random/boot_id", 256));
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

void CloneSource::Serve(transfer::Channel& channel) {
  const absl::Status status = ServeCaller(channel);
  if (status.ok()) return;
  // A target may close at any time; the session knows what that means.
  base::Log(absl::IsUnavailable(status) ? base::LogLevel::kInfo : base::LogLevel::kWarning,
            "clone.connection_ended peer={} reason=\"{}\"", channel.peer(),
            std::string(status.message()));
}

absl::Status CloneSource::Authorize(const transfer::Channel& channel) const {
  if (!channel.secure()) return absl::OkStatus();  // only served on loopback
  for (const auto& binding : parts_.config.role_bindings) {
    if (binding.role != "peer" && binding.role != "orchestrator") continue;
    const auto& names = channel.names();
    if (std::find(names.begin(), names.end(), binding.san) != names.end()) return absl::OkStatus();
  }
  return base::WithReason(
      base::Error(
          absl::StatusCode::kPermissionDenied,
          "{} may not clone this node. HINT: add a [[tls.role]] with role \"peer\" for the "
          "certificate's subject alternative name on the source",
          channel.names().empty() ? "a certificate without names" : channel.names().front()),
      {"PERMISSION_DENIED", {}});
}

absl::Status CloneSource::ServeCaller(transfer::Channel& channel) {
  absl::Status status = Authorize(channel);
  if (status.ok()) {
    METAL_ASSIGN_OR_RETURN(const auto first, Hear(channel, parts_.clock));
    if (first.header.type == Type(CloneMessage::kHello)) {
      METAL_ASSIGN_OR_RETURN(const CloneHello hello, DecodeCloneHello(first.body));
      status = ServeControl(channel, hello);
    } else if (first.header.type == Type(CloneMessage::kAttach)) {
      METAL_ASSIGN_OR_RETURN(const CloneAttach attach, DecodeCloneAttach(first.body));
      return ServeData(channel, attach);
    } else if (first.header.type == Type(CloneMessage::kGiveUp)) {
      METAL_ASSIGN_OR_RETURN(const CloneGiveUp message, DecodeCloneGiveUp(first.body));
      GiveUp(message);
    } else {
      status = Unexpected(first.header);
    }
  }
  if (!status.ok()) {
    METAL_RETURN_IF_ERROR(Say(channel, CloneMessage::kFailure, EncodeFailure(status)));
  }
  return status;
}

absl::StatusOr<CloneWelcome> CloneSource::Describe() {
  const std::string& path = parts_.config.pg_data_dir;
  CloneWelcome welcome;
  METAL_ASSIGN_OR_RETURN(const pg::DataDirectory directory, pg::InspectDataDirectory(path));
  if (directory.kind != pg::DataDirectoryKind::kCluster) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "{} holds no complete cluster. HINT: clone from another node", path);
  }
  METAL_ASSIGN_OR_RETURN(const pg::ControlFile control, pg::ReadControlFile(path));
  METAL_ASSIGN_OR_RETURN(const auto source, parts_.open_source());
  METAL_ASSIGN_OR_RETURN(const SourceArchiving server, source->Archiving());
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return base::ErrnoStatus(errno, "stat", path);
  METAL_ASSIGN_OR_RETURN(welcome.boot_id, ReadBootId());
  welcome.node_id = parts_.config.node_id;
  welcome.device = status.st_dev;
  welcome.inode = status.st_ino;
  welcome.data_directory = directory.real_path;
  welcome.system_identifier = control.system_identifier;
  welcome.postgres_major = directory.major;
  welcome.catalog_version = control.catalog_version;
  welcome.in_recovery = server.standby;
  METAL_ASSIGN_OR_RETURN(const TablespaceList tablespaces, ListTablespaces(path));
  for (const auto& [oid, location] : tablespaces) {
    if (!location.empty()) welcome.tablespaces[oid] = location;
  }
  METAL_ASSIGN_OR_RETURN(welcome.bytes,
                         CountCloneBytes({path, directory.major, control.catalog_version}));
  return welcome;
}

absl::Status CloneSource::Reserve(const std::string& target,
                                  const std::vector<std::string>& names) {
  ForgetEnded();
  base::MutexLock lock(mutex_);
  if (stopping_) return absl::UnavailableError("the source's agent stops. HINT: clone again");
  size_t running = opening_;
  for (const auto& [id, served] : sessions_) {
    if (served.session->ended()) continue;
    if (served.target == target && served.names == names) {
      served.session->Cancel(
          absl::AbortedError("the target began another clone. HINT: follow that one"));
    } else {
      ++running;
    }
  }
  if (running >= kCloneSessionsMax) {
    return base::Error(absl::StatusCode::kResourceExhausted,
                       "the source serves {} clones already. HINT: wait, or clone from another "
                       "node",
                       running);
  }
  ++opening_;
  return absl::OkStatus();
}

// The checkpoint may take minutes; the target hears all the while that we are there.
absl::StatusOr<CloneSource::SessionPtr> CloneSource::Open(transfer::Channel& channel,
                                                          const CloneBegin& begin,
                                                          const std::string& target) {
  base::Mutex mutex;
  base::CondVar done;
  std::optional<absl::StatusOr<SessionPtr>> result;
  std::atomic<bool> left{false};
  base::Thread opener("clone-open", [&] {
    auto opened = CloneSession::Begin(parts_, begin, target, [&] { return left.load(); });
    base::MutexLock lock(mutex);
    result = std::move(opened);
    done.NotifyAll();
  });
  absl::Status heard;
  while (true) {
    {
      base::MutexLock lock(mutex);
      if (!result) done.WaitFor(mutex, transfer::kAliveInterval);
      if (result) break;
    }
    if (left) continue;
    heard = Say(channel, CloneMessage::kStatus, Encode(CloneStatus{"starting backup"}));
    base::MutexLock lock(mutex_);
    left = !heard.ok() || stopping_;
  }
  opener.Join();
  METAL_RETURN_IF_ERROR(heard);
  return *std::move(result);
}

absl::Status CloneSource::ServeControl(transfer::Channel& channel, const CloneHello& hello) {
  METAL_ASSIGN_OR_RETURN(const CloneWelcome welcome, Describe());
  METAL_RETURN_IF_ERROR(Say(channel, CloneMessage::kWelcome, Encode(welcome)));
  METAL_ASSIGN_OR_RETURN(const auto received, Hear(channel, parts_.clock));
  if (received.header.type == Type(CloneMessage::kAbort)) return absl::OkStatus();
  if (received.header.type != Type(CloneMessage::kBegin)) return Unexpected(received.header);
  METAL_ASSIGN_OR_RETURN(const CloneBegin begin, DecodeCloneBegin(received.body));
  METAL_RETURN_IF_ERROR(Reserve(hello.node_id, channel.names()));
  auto session = Open(channel, begin, hello.node_id);
  {
    base::MutexLock lock(mutex_);
    --opening_;
    if (session.ok()) {
      sessions_[(*session)->plan().session] = {*session, hello.node_id, channel.names()};
    }
    if (session.ok() && stopping_) {
      (*session)->Cancel(absl::UnavailableError("the source's agent stops. HINT: clone again"));
    }
  }
  METAL_RETURN_IF_ERROR(session.status());
  const absl::Status told = Say(channel, CloneMessage::kPlan, Encode((*session)->plan()));
  if (!told.ok()) (*session)->Cancel(told);
  return told;
}

CloneSource::SessionPtr CloneSource::Find(const std::string& id) {
  base::MutexLock lock(mutex_);
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? nullptr : found->second.session;
}

void CloneSource::GiveUp(const CloneGiveUp& message) {
  const SessionPtr session = Find(message.session);
  if (session != nullptr) session->Cancel(base::Annotate(message.why, "the target gave up"));
}

absl::Status CloneSource::ServeData(transfer::Channel& channel, const CloneAttach& attach) {
  const SessionPtr session = Find(attach.session);
  if (session == nullptr) {
    const absl::Status unknown = base::Error(
        absl::StatusCode::kNotFound,
        "the source does not know this clone: its agent was restarted, or it waited too long. "
        "HINT: clone again");
    METAL_RETURN_IF_ERROR(Say(channel, CloneMessage::kFailure, EncodeFailure(unknown)));
    return unknown;
  }
  METAL_RETURN_IF_ERROR(Say(channel, CloneMessage::kAttached, ""));
  return session->Serve(channel);
}

void CloneSource::ForgetEnded() {
  std::vector<SessionPtr> forgotten;  // destroyed without the lock
  base::MutexLock lock(mutex_);
  for (auto at = sessions_.begin(); at != sessions_.end();) {
    const bool old = at->second.session->ended_for() > kRemember;
    if (old) forgotten.push_back(std::move(at->second.session));
    at = old ? sessions_.erase(at) : std::next(at);
  }
}

void CloneSource::Stop() {
  base::MutexLock lock(mutex_);
  stopping_ = true;
  for (const auto& [id, served] : sessions_) {
    served.session->Cancel(absl::UnavailableError("the source's agent stops. HINT: clone again"));
  }
}

}  // namespace metal::backup
