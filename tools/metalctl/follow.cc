#include "tools/metalctl/follow.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <optional>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "tools/metalctl/progress.h"

namespace metal::ctl {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr absl::Duration kCancelPatience = absl::Seconds(5);

bool IsFinal(v1::OperationState state) {
  return state == v1::OPERATION_STATE_SUCCEEDED || state == v1::OPERATION_STATE_FAILED ||
         state == v1::OPERATION_STATE_CANCELLED;
}

enum class Answer { kContinue, kCancel, kLeave };

// Waits for the answer, or for a second Ctrl-C: whichever thread that comes to, and also just
// before a read begins.
bool AnswerCame() {
  pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  while (!InterruptGuard::Pressed()) {
    if (poll(&input, 1, 50) > 0) return true;
  }
  return false;
}

Answer AskAfterInterrupt(const std::string& name) {
  if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) return Answer::kLeave;
  fmt::print(stderr, "\n{} goes on in the agent. [c]ancel it, [l]eave it running, or [w]atch on? ",
             name);
  std::fflush(stderr);
  std::string answer;
  if (!AnswerCame()) return Answer::kLeave;
  std::getline(std::cin, answer);
  if (!std::cin || answer.empty()) return Answer::kLeave;
  if (answer[0] == 'c' || answer[0] == 'C') return Answer::kCancel;
  return answer[0] == 'w' || answer[0] == 'W' ? Answer::kContinue : Answer::kLeave;
}

int ReportEnd(const Client& client, const v1::Operation& operation) {
  if (operation.state() == v1::OPERATION_STATE_SUCCEEDED) return kExitOk;
  Error error = ErrorOf(operation.error());
  if (operation.state() == v1::OPERATION_STATE_CANCELLED) {
    error.code = "CANCELLED";
    error.message = operation.name() + " was cancelled";
    return client.Fail(error, kExitFailed);
  }
  return client.Fail(error, ExitCodeOf(static_cast<grpc::StatusCode>(operation.error().code())));
}

// Asks the agent to cancel; gives up after kCancelPatience or at Ctrl-C.
grpc::Status Cancel(const Client& client, const std::string& name) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kCancelPatience));
  v1::CancelOperationRequest request;
  request.set_name(name);
  v1::CancelOperationResponse response;
  grpc::CompletionQueue queue;
  grpc::Status status;
  auto call = client.operations->AsyncCancelOperation(&context, request, &queue);
  call->Finish(&response, &status, &status);
  void* tag = nullptr;
  bool ok = false;
  while (queue.AsyncNext(&tag, &ok, absl::ToChronoTime(absl::Now() + absl::Milliseconds(50))) ==
         grpc::CompletionQueue::TIMEOUT) {
    if (InterruptGuard::Pressed()) context.TryCancel();
  }
  queue.Shutdown();
  queue.Next(&tag, &ok);
  return status;
}

int Leave(const Client& client, const std::string& name, int code) {
  client.Note(fmt::format("{} goes on. HINT: metalctl op watch {}", name, name));
  return code;
}

// The exit code when there is nothing more to watch.
std::optional<int> AfterInterrupt(const Client& client, const std::string& name) {
  InterruptGuard::Clear();
  const Answer answer = AskAfterInterrupt(name);
  if (answer == Answer::kLeave) return Leave(client, name, kExitInterrupted);
  InterruptGuard::Clear();
  if (answer == Answer::kContinue) return std::nullopt;
  const grpc::Status status = Cancel(client, name);
  if (InterruptGuard::Pressed()) return Leave(client, name, kExitInterrupted);
  if (status.ok()) {
    client.Note(fmt::format("asked {} to stop; waiting for its end", name));
    return std::nullopt;
  }
  // It had ended before the answer to the question.
  if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION) return std::nullopt;
  const int code = client.Fail(status);
  client.Note(fmt::format("{} was not cancelled. HINT: metalctl op cancel {}", name, name));
  return code;
}

// One watch stream; returns when it ended, the operation is final, or Ctrl-C was pressed.
grpc::Status WatchOnce(const Client& client, v1::Operation* operation, ProgressDisplay& display,
                       Reconnect& reconnect) {
  using Event = Watch<v1::WatchOperationResponse>::Event;
  constexpr absl::Duration kSilence = absl::Seconds(5);  // four states a second are due
  v1::WatchOperationRequest request;
  request.set_name(operation->name());
  Watch<v1::WatchOperationResponse> watch([&](grpc::ClientContext* context, auto* queue) {
    return client.operations->PrepareAsyncWatchOperation(context, request, queue);
  });
  v1::WatchOperationResponse response;
  absl::Time last = absl::Now();
  while (!IsFinal(operation->state())) {
    switch (watch.Next(&response, kSilence)) {
      case Event::kResponse:
        reconnect.Works();
        last = absl::Now();
        *operation = response.operation();
        display.Show(*operation);
        break;
      case Event::kSilent:
        display.ShowSilence(absl::Now() - last);
        break;
      default:
        return watch.Finish();
    }
  }
  return grpc::Status::OK;
}

}  // namespace

bool AgentAnswers(const Client& client) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Milliseconds(500)));
  v1::GetCapabilitiesResponse response;
  return client.host->GetCapabilities(&context, {}, &response).ok();
}

int FollowOperation(const Client& client, v1::Operation* operation, const FollowOptions& options) {
  if (options.detach) {
    if (!client.json()) fmt::print("{}\n", operation->name());
    return kExitOk;
  }
  InterruptGuard guard;
  ProgressDisplay display(client.json());
  Reconnect reconnect(client, true, kPatience);
  while (!IsFinal(operation->state())) {
    const grpc::Status status = WatchOnce(client, operation, display, reconnect);
    if (IsFinal(operation->state())) break;
    display.EndLine();
    // A restart of the agent breaks the stream; the operation is then resumed or reported as
    // failed.
    if (!InterruptGuard::Pressed() && !reconnect.ShouldRetry(status)) {
      const int code = client.Fail(
          status.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "the stream ended") : status);
      return Leave(client, operation->name(), code);
    }
    if (!InterruptGuard::Pressed()) continue;
    if (const auto code = AfterInterrupt(client, operation->name())) return *code;
  }
  display.EndLine();
  return ReportEnd(client, *operation);
}

}  // namespace metal::ctl
