#include "agent/base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "agent/base/child.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"

namespace metal::base {
namespace {

constexpr absl::Duration kCancelPoll = absl::Milliseconds(100);
constexpr absl::Duration kTermToKill = absl::Seconds(5);
constexpr size_t kLongestLine = 8192;

// The newest `limit` bytes of a stream.
class Tail {
 public:
  explicit Tail(size_t limit) : limit_(limit) {}
  void Append(std::string_view bytes) {
    text_ += bytes;
    if (text_.size() > 2 * limit_ + 4096) Trim();
  }
  std::string Take() {
    Trim();
    return std::move(text_);
  }

 private:
  void Trim() {
    if (text_.size() > limit_) text_.erase(0, text_.size() - limit_);
  }
  const size_t limit_;
  std::string text_;
};

// Cuts a stream into lines without their ends; a longer line than kLongestLine comes in pieces.
class LineSplitter {
 public:
  explicit LineSplitter(const std::function<void(std::string_view)>& sink) : sink_(sink) {}
  void Append(std::string_view bytes) {
    if (!sink_) return;
    for (char c : bytes) {
      if (c != '\n') line_ += c;
      if (c == '\n' || line_.size() >= kLongestLine) Emit();
    }
  }
  void Finish() {
    if (!line_.empty()) Emit();
  }

 private:
  void Emit() {
    sink_(line_);
    line_.clear();
  }
  const std::function<void(std::string_view)>& sink_;
  std::string line_;
};

absl::StatusOr<UniqueFd> InputFor(const std::string& bytes) {
  if (bytes.empty()) return OpenFile("/dev/null", O_RDONLY);
  // A memory file rather than a pipe: nothing to feed while the child runs, no SIGPIPE, any size.
  UniqueFd fd(memfd_create("standard-input", MFD_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "create", "standard input");
  METAL_RETURN_IF_ERROR(WriteAll(fd.get(), bytes, "standard input"));
  if (lseek(fd.get(), 0, SEEK_SET) != 0) return ErrnoStatus(errno, "rewind", "standard input");
  return fd;
}

// One run: owns the pipes and the child until it is reaped or abandoned.
class Run {
 public:
  explicit Run(const SubprocessOptions& options)
      : options_(options),
        out_(options.output_limit),
        err_(options.output_limit),
        lines_(options.on_stderr_line) {}

  absl::Status Start() {
    METAL_ASSIGN_OR_RETURN(UniqueFd input, InputFor(options_.standard_input));
    METAL_ASSIGN_OR_RETURN(Pipe out, Pipe::Create());
    METAL_ASSIGN_OR_RETURN(Pipe err, Pipe::Create());
    METAL_ASSIGN_OR_RETURN(Pipe report, Pipe::Create());
    METAL_ASSIGN_OR_RETURN(
        ChildPlan plan, ChildPlan::Make(options_.argv, options_.environment, options_.directory));
    plan.standard_input = input.get();
    plan.standard_output = out.write.get();
    plan.standard_error = err.write.get();
    plan.report = report.write.get();
    METAL_ASSIGN_OR_RETURN(pid_, ForkChild(plan));
    pid_fd_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
    if (!pid_fd_.valid()) {
      const absl::Status status = ErrnoStatus(errno, "watch child", options_.argv[0]);
      kill(pid_, SIGKILL);
      Reap();
      return status;
    }
    out_fd_ = std::move(out.read);
    err_fd_ = std::move(err.read);
    report_fd_ = std::move(report.read);
    for (int fd : {out_fd_.get(), err_fd_.get(), report_fd_.get()}) {
      fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    return absl::OkStatus();
  }

  // Serves the child's output until it ended; fills `result`.
  absl::Status Finish(SubprocessResult& result) {
    const MonotonicTime start = RealClock().Monotonic();
    absl::Status verdict;                       // why it was told to end
    absl::Duration kill_at = options_.timeout;  // since start
    bool killed = false;
    while (!PollOnce(killed, kill_at - (RealClock().Monotonic() - start))) {
      const absl::Duration elapsed = RealClock().Monotonic() - start;
      if (verdict.ok() && options_.cancelled && options_.cancelled()) {
        verdict = Error(absl::StatusCode::kCancelled, "run {}: cancelled", options_.argv[0]);
        kill(-pid_, SIGTERM);
        kill_at = elapsed + kTermToKill;
      }
      if (elapsed < kill_at) continue;
      if (verdict.ok()) {
        verdict = Error(absl::StatusCode::kDeadlineExceeded, "run {}: not done after {}",
                        options_.argv[0], absl::FormatDuration(options_.timeout));
      }
      if (killed) {  // it hangs in the kernel: let a thread of its own collect it
        Thread("reap", [pid = pid_] { waitpid(pid, nullptr, 0); }).Detach();
        return verdict;
      }
      kill(-pid_, SIGKILL);
      killed = true;
      kill_at = elapsed + options_.kill_patience;
    }
    Drain(out_fd_, out_, nullptr);
    Drain(err_fd_, err_, &lines_);
    lines_.Finish();
    const absl::Status started = ReadReport();
    result.exit_code = Reap();
    result.standard_output = out_.Take();
    result.standard_error = err_.Take();
    if (!started.ok()) return started;
    if (!verdict.ok() && !result.LastLine().empty()) {
      return Error(verdict.code(), "{}: {}", std::string(verdict.message()), result.LastLine());
    }
    return verdict;
  }

 private:
  // Waits for output, the child's end (true) or the time to look at the clock again.
  bool PollOnce(bool killed, absl::Duration until_kill) {
    absl::Duration wait = std::max(until_kill, absl::ZeroDuration());
    if (options_.cancelled && !killed) wait = std::min(wait, kCancelPoll);
    wait = std::min(wait, absl::Seconds(60));
    pollfd fds[] = {
        {pid_fd_.get(), POLLIN, 0}, {out_fd_.get(), POLLIN, 0}, {err_fd_.get(), POLLIN, 0}};
    const int milliseconds =
        static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(wait, absl::Milliseconds(1))));
    if (poll(fds, std::size(fds), milliseconds) <= 0) return false;
    if (fds[1].revents != 0) ReadSome(out_fd_, out_, nullptr);
    if (fds[2].revents != 0) ReadSome(err_fd_, err_, &lines_);
    return fds[0].revents != 0;
  }

  // One read. False when there is nothing more now; at the end of the stream the descriptor is
  // closed.
  static bool ReadSome(UniqueFd& fd, Tail& tail, LineSplitter* lines) {
    if (!fd.valid()) return false;
    char buffer[16384];
    const ssize_t got = read(fd.get(), buffer, sizeof buffer);
    if (got < 0) return errno == EINTR;
    if (got == 0) {
      fd.Reset();
      return false;
    }
    const std::string_view bytes(buffer, static_cast<size_t>(got));
    tail.Append(bytes);
    if (lines != nullptr) lines->Append(bytes);
    return true;
  }

  // What the pipe holds now. A grandchild may keep it open: the end of the stream is not waited
  // for, and what such a grandchild goes on writing is read only up to a bound.
  static void Drain(UniqueFd& fd, Tail& tail, LineSplitter* lines) {
    for (int i = 0; i < 1024 && ReadSome(fd, tail, lines); ++i) {
    }
  }

  // OK when exec succeeded. REQUIRES: the child ended.
  absl::Status ReadReport() {
    ChildReport report{};
    if (read(report_fd_.get(), &report, sizeof report) != sizeof report) return absl::OkStatus();
    return ChildReportStatus(report, options_.argv[0], options_.directory);
  }

  int Reap() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

  const SubprocessOptions& options_;
  pid_t pid_ = -1;
  UniqueFd pid_fd_, out_fd_, err_fd_, report_fd_;
  Tail out_, err_;
  LineSplitter lines_;
};

std::string_view LastNonEmptyLine(std::string_view text) {
  const size_t end = text.find_last_not_of(" \t\r\n");
  if (end == std::string_view::npos) return {};
  text = text.substr(0, end + 1);
  const size_t newline = text.rfind('\n');
  return newline == std::string_view::npos ? text : text.substr(newline + 1);
}

}  // namespace

std::string SubprocessResult::LastLine() const {
  const std::string_view line = LastNonEmptyLine(standard_error);
  return std::string(line.empty() ? LastNonEmptyLine(standard_output) : line);
}

absl::StatusOr<SubprocessResult> RunSubprocess(const SubprocessOptions& options) {
  Run run(options);
  METAL_RETURN_IF_ERROR(run.Start());
  SubprocessResult result;
  METAL_RETURN_IF_ERROR(run.Finish(result));
  return result;
}

absl::StatusOr<pid_t> StartDaemon(const DaemonOptions& options) {
  METAL_ASSIGN_OR_RETURN(const UniqueFd input, OpenFile("/dev/null", O_RDONLY));
  const std::string log_path = options.log_path.empty() ? "/dev/null" : options.log_path;
  METAL_ASSIGN_OR_RETURN(const UniqueFd log,
                         OpenFile(log_path, O_WRONLY | O_CREAT | O_APPEND, 0600));
  METAL_ASSIGN_OR_RETURN(Pipe report, Pipe::Create());
  METAL_ASSIGN_OR_RETURN(ChildPlan plan,
                         ChildPlan::Make(options.argv, options.environment, options.directory));
  plan.standard_input = input.get();
  plan.standard_output = log.get();
  plan.standard_error = log.get();
  plan.report = report.write.get();
  plan.daemon = true;
  METAL_ASSIGN_OR_RETURN(const pid_t middle, ForkChild(plan));
  report.write.Reset();
  while (waitpid(middle, nullptr, 0) < 0 && errno == EINTR) {
  }
  // The middle process tells the daemon's pid; the daemon tells an error, or closes the pipe by a
  // good exec.
  pid_t daemon = -1;
  while (true) {
    ChildReport message{};
    const ssize_t got = read(report.read.get(), &message, sizeof message);
    if (got < 0 && errno == EINTR) continue;
    if (got != sizeof message) break;
    METAL_RETURN_IF_ERROR(ChildReportStatus(message, options.argv[0], options.directory));
    daemon = message.pid;
  }
  if (daemon < 0)
    return Error(absl::StatusCode::kInternal, "start {}: no word from it", options.argv[0]);
  return daemon;
}

}  // namespace metal::base
