#include "tools/metalctl/follow.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "tools/metalctl/format.h"

namespace metal::ctl {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;  // a signal handler has nowhere else to write

class InterruptGuard {
 public:
  InterruptGuard() {
    g_interrupted = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { g_interrupted = 1; };
    sigaction(SIGINT, &action, &before_);
  }
  ~InterruptGuard() { sigaction(SIGINT, &before_, nullptr); }

 private:
  struct sigaction before_ {};
};

bool IsFinal(v1::OperationState state) {
  return state == v1::OPERATION_STATE_SUCCEEDED || state == v1::OPERATION_STATE_FAILED ||
         state == v1::OPERATION_STATE_CANCELLED;
}

int TerminalWidth() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) return size.ws_col;
  return 80;
}

// Shows one state after another.
class Display {
 public:
  explicit Display(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~Display() { EndLine(); }

  void Show(const v1::Operation& operation) {
    if (quiet_) return;
    if (terminal_) {
      if (operation.progress().phase() != phase_) EndPhase();
      phase_ = operation.progress().phase();
      line_ = ProgressLine(operation, TerminalWidth());
      fmt::print(stderr, "\r\033[K{}", line_);
    } else if (operation.progress().phase() != phase_ && !operation.progress().phase().empty()) {
      phase_ = operation.progress().phase();
      fmt::print(stderr, "{}: {}\n", operation.kind(), phase_);
    }
    std::fflush(stderr);
  }
  void EndLine() {
    if (!line_.empty()) fmt::print(stderr, "\r\033[K");
    line_.clear();
  }

 private:
  void EndPhase() {
    if (!line_.empty()) fmt::print(stderr, "\n");
    line_.clear();
  }
  const bool quiet_;
  const bool terminal_;
  std::string phase_, line_;
};

enum class Answer { kContinue, kCancel, kLeave };

Answer AskAfterInterrupt(const std::string& name) {
  if (!isatty(STDIN_FILENO)) return Answer::kLeave;
  fmt::print(stderr, "\n{} goes on in the agent. [c]ancel it, [l]eave it running, or [w]atch on? ",
             name);
  std::fflush(stderr);
  std::string answer;
  std::getline(std::cin, answer);
  if (!std::cin || answer.empty()) return Answer::kLeave;
  if (answer[0] == 'c' || answer[0] == 'C') return Answer::kCancel;
  return answer[0] == 'w' || answer[0] == 'W' ? Answer::kContinue : Answer::kLeave;
}

int ReportEnd(const Client& client, const v1::Operation& operation) {
  if (operation.state() == v1::OPERATION_STATE_SUCCEEDED) return kExitOk;
  if (client.json()) return ExitCodeOf(static_cast<grpc::StatusCode>(operation.error().code()));
  if (operation.state() == v1::OPERATION_STATE_CANCELLED) {
    fmt::print(stderr, "metalctl: {} was cancelled\n", operation.name());
    return kExitFailed;
  }
  return client.Fail(grpc::Status(static_cast<grpc::StatusCode>(operation.error().code()),
                                  operation.error().message()));
}

void Cancel(const Client& client, const std::string& name) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::CancelOperationRequest request;
  request.set_name(name);
  v1::CancelOperationResponse response;
  if (auto status = client.operations->CancelOperation(&context, request, &response);
      !status.ok()) {
    client.Fail(status);
  }
}

// One watch stream; returns when it ended, the operation is final, or Ctrl-C was pressed.
grpc::Status WatchOnce(const Client& client, v1::Operation* operation, Display& display) {
  grpc::ClientContext context;
  v1::WatchOperationRequest request;
  request.set_name(operation->name());
  auto reader = client.operations->WatchOperation(&context, request);
  v1::WatchOperationResponse response;
  // The stream sends at least four states a second, so an interrupt is seen soon.
  while (!g_interrupted && reader->Read(&response)) {
    *operation = response.operation();
    display.Show(*operation);
  }
  if (g_interrupted) context.TryCancel();
  return reader->Finish();
}

}  // namespace

std::string ProgressLine(const v1::Operation& operation, int width) {
  const auto& progress = operation.progress();
  std::string line = fmt::format("{}: {}", operation.kind(), progress.phase());
  if (progress.total_bytes() <= 0) {
    return line + "  " + FormatDuration(progress.phase_elapsed());
  }
  const double share = std::min(1.0, static_cast<double>(progress.done_bytes()) /
                                         static_cast<double>(progress.total_bytes()));
  std::string facts =
      fmt::format("{:3.0f}%  {} of {}  {}", share * 100, FormatBytes(progress.done_bytes()),
                  FormatBytes(progress.total_bytes()), FormatRate(progress.bytes_per_second()));
  if (progress.has_eta()) facts += "  ETA " + FormatDuration(progress.eta());
  const int room = width - static_cast<int>(line.size() + facts.size()) - 6;
  if (room >= 10) {
    const auto bar = static_cast<size_t>(std::min(room, 40));
    const auto full = static_cast<size_t>(share * static_cast<double>(bar));
    line += "  [" + std::string(full, '#') + std::string(bar - full, '.') + "]";
  }
  return line + "  " + facts;
}

int FollowOperation(const Client& client, v1::Operation* operation, const FollowOptions& options) {
  if (options.detach) {
    if (!client.json()) fmt::print("{}\n", operation->name());
    return kExitOk;
  }
  InterruptGuard guard;
  Display display(client.json());
  int failures = 0;
  while (!IsFinal(operation->state())) {
    const grpc::Status status = WatchOnce(client, operation, display);
    if (IsFinal(operation->state())) break;
    if (g_interrupted) {
      g_interrupted = 0;
      display.EndLine();
      const Answer answer = AskAfterInterrupt(operation->name());
      if (answer == Answer::kCancel) Cancel(client, operation->name());
      if (answer == Answer::kLeave) {
        fmt::print(stderr, "{} goes on. HINT: metalctl op watch {}\n", operation->name(),
                   operation->name());
        return kExitInterrupted;
      }
      continue;
    }
    // A restart of the agent breaks the stream; the operation is then resumed or reported as
    // failed.
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE || ++failures > 30) {
      display.EndLine();
      return client.Fail(status);
    }
    absl::SleepFor(absl::Seconds(1));
  }
  display.EndLine();
  return ReportEnd(client, *operation);
}

}  // namespace metal::ctl
