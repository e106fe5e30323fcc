// CloneSource: serves other agents that clone this node's data directory, on the connections of the
// transfer listener (clone_protocol.h). With TLS the caller's certificate must have the role peer
// or orchestrator. Limits: kCloneSessionsMax clones at once; how one ended is remembered for a
// minute, so that a target whose connection broke hears it. A node makes one clone at a time: one
// that begins another has lost the first, which then ends at once. Threading: Serve on the
// listener's threads; Stop on any.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/backup/clone_session.h"
#include "agent/base/mutex.h"
#include "agent/transfer/channel.h"

namespace metal::backup {

inline constexpr size_t kCloneSessionsMax = 2;

class CloneSource {
 public:
  explicit CloneSource(CloneSourceParts parts) : parts_(std::move(parts)) {}
  // REQUIRES: no Serve runs.
  ~CloneSource() { Stop(); }

  // Serves one connection until it ends.
  void Serve(transfer::Channel& channel);
  // Ends all clones: their targets hear it. Then Serve returns soon.
  void Stop();

 private:
  using SessionPtr = std::shared_ptr<CloneSession>;
  struct Served {
    SessionPtr session;
    std::string target;              // node_id
    std::vector<std::string> names;  // of its certificate
  };
  absl::Status ServeCaller(transfer::Channel& channel);
  absl::Status Authorize(const transfer::Channel& channel) const;
  absl::Status ServeControl(transfer::Channel& channel, const CloneHello& hello);
  absl::Status ServeData(transfer::Channel& channel, const CloneAttach& attach);
  void GiveUp(const CloneGiveUp& message);
  SessionPtr Find(const std::string& id);
  absl::StatusOr<CloneWelcome> Describe();
  absl::StatusOr<SessionPtr> Open(transfer::Channel& channel, const CloneBegin& begin,
                                  const std::string& target);
  absl::Status Reserve(const std::string& target, const std::vector<std::string>& names);
  void ForgetEnded();

  const CloneSourceParts parts_;
  base::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  size_t opening_ ABSL_GUARDED_BY(mutex_) = 0;  // reserved, not in sessions_ yet
  std::map<std::string, Served> sessions_ ABSL_GUARDED_BY(mutex_);  // by id
};

// Of this kernel's boot.
absl::StatusOr<std::string> ReadBootId();

}  // namespace metal::backup
