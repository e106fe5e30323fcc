// Follows an operation, or a stream, until its end. Threading: the calling thread; handles SIGINT
// while it runs.
#pragma once

#include <functional>
#include <string>

#include "tools/metalctl/client.h"
#include "tools/metalctl/reconnect.h"
#include "tools/metalctl/watch.h"

namespace metal::ctl {

struct FollowOptions {
  bool detach = false;  // print the name and return at once
};

// Shows the progress on standard error until the operation ends; goes on when the agent restarts,
// for at most 2 min without an answer. Ctrl-C on a terminal asks whether to cancel the operation or
// to leave it running; without a terminal it leaves it running. Neither waits for an agent that
// does not answer. Exit code: 0 when it succeeded; otherwise the operation's error as ExitCodeOf,
// after printing it. Fills *operation.
int FollowOperation(const Client& client, v1::Operation* operation, const FollowOptions& options);

// True when the agent answers a small question within 0.5 s.
bool AgentAnswers(const Client& client);

struct StreamOptions {
  absl::Duration due;  // something should come at least this often; silence is told
  // Where nothing needs to come: asked after a silence, it says whether the agent answers; at most
  // 0.5 s.
  std::function<bool()> answers = nullptr;
  bool worked =
      false;  // the agent answered just now, so the first stream's failure is worth another try
};

// Shows each response of a stream until Ctrl-C, which gives kExitInterrupted. Begins the stream
// again when the agent restarted. `start(context, queue)` prepares the call; `recover(status)` is
// true when the stream may begin again after this end at once.
template <typename Response, typename Start, typename Show, typename Recover>
int FollowStream(const Client& client, const StreamOptions& options, Start start, Show show,
                 Recover recover) {
  using Event = typename Watch<Response>::Event;
  InterruptGuard guard;
  Reconnect reconnect(client, options.worked);
  while (true) {
    Watch<Response> watch(start);
    Response response;
    Event event = Event::kSilent;
    while ((event = watch.Next(&response, options.due)) != Event::kEnded) {
      if (event == Event::kInterrupted) return kExitInterrupted;
      if (event == Event::kSilent) {
        if (options.answers && options.answers()) {
          reconnect.Works();
        } else {
          reconnect.Silent(options.due);
        }
        continue;
      }
      reconnect.Works();
      show(response);
    }
    const grpc::Status status = watch.Finish();
    if (recover(status)) continue;
    if (!reconnect.ShouldRetry(status)) return status.ok() ? kExitOk : client.Fail(status);
    if (InterruptGuard::Pressed()) return kExitInterrupted;
  }
}

}  // namespace metal::ctl
