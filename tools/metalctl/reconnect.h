// Goes on with a stream after its agent was restarted. Threading: one thread.
#pragma once

#include "absl/time/time.h"
#include "tools/metalctl/client.h"

namespace metal::ctl {

class Reconnect {
 public:
  // `worked`: the agent answered before, so a failure of the first stream is worth another try.
  // Gives up `patience` after the last answer. Keeps a reference to `client`.
  Reconnect(const Client& client, bool worked, absl::Duration patience = absl::Minutes(10));

  // A response came. Says so when the loss was told.
  void Works();
  // The stream ended with `status`. True: after a pause (0.2 s, doubling to 2 s; Ctrl-C ends it) it
  // is time to begin it again; the first time this is told on standard error. False: give up and
  // report `status`.
  bool ShouldRetry(const grpc::Status& status);
  // The stream stands and nothing came for `silence`, where something was due: told once until
  // Works().
  void Silent(absl::Duration silence);

 private:
  const Client& client_;
  const absl::Duration patience_;
  bool worked_;
  bool told_ = false;
  absl::Duration pause_;
  absl::Time last_answer_;
};

// Waits; returns early when an InterruptGuard saw Ctrl-C.
void Pause(absl::Duration duration);

}  // namespace metal::ctl
