#include "agent/base/child.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "agent/base/status.h"

namespace metal::base {
namespace {

constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr int kFirstFreeFd = 10;

std::string HomeDirectory() {
  passwd entry{};
  passwd* found = nullptr;
  char buffer[4096];
  if (getpwuid_r(geteuid(), &entry, buffer, sizeof buffer, &found) != 0 || found == nullptr)
    return "/";
  return found->pw_dir;
}

absl::StatusOr<std::string> FindProgram(const std::string& name, std::string_view path) {
  if (name.find('/') != std::string::npos) return name;
  while (!path.empty()) {
    const size_t end = std::min(path.find(':'), path.size());
    std::string candidate = fmt::format("{}/{}", path.substr(0, end), name);
    if (candidate.front() == '/' && access(candidate.c_str(), X_OK) == 0) return candidate;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return Error(absl::StatusCode::kNotFound, "run {}: not found in PATH", name);
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// What the child reads after the fork; plain memory, no allocation.
struct ChildContext {
  const ChildPlan& plan;
  char* const* arguments;
  char* const* environment;
  pid_t parent;
};

[[noreturn]] void Fail(int fd, ChildReport::Step step) {
  const ChildReport report{step, errno, getpid()};
  if (write(fd, &report, sizeof report) < 0) _exit(126);
  _exit(127);
}

void ResetSignals() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Becomes the program. Only async-signal-safe calls: other threads' locks are held for ever in this
// process.
[[noreturn]] void RunChild(const ChildContext& context) {
  const ChildPlan& plan = context.plan;
  ResetSignals();
  if (plan.daemon) {
    if (setsid() < 0) Fail(plan.report, ChildReport::kSetUp);
    const pid_t daemon = _Fork();  // without the handlers of other libraries
    if (daemon < 0) Fail(plan.report, ChildReport::kFork);
    if (daemon > 0) {
      const ChildReport report{ChildReport::kStarted, 0, daemon};
      _exit(write(plan.report, &report, sizeof report) == sizeof report ? 0 : 126);
    }
  } else {
    if (setpgid(0, 0) != 0) Fail(plan.report, ChildReport::kSetUp);
    // A command must not go on behind the back of the agent's next life.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != context.parent) _exit(126);
  }
  if (dup2(plan.standard_input, 0) < 0 || dup2(plan.standard_output, 1) < 0 ||
      dup2(plan.standard_error, 2) < 0 || dup3(plan.report, 3, O_CLOEXEC) < 0) {
    Fail(plan.report, ChildReport::kSetUp);
  }
  if (syscall(SYS_close_range, 4u, ~0u, 0u) != 0) Fail(3, ChildReport::kSetUp);
  if (chdir(plan.directory.c_str()) != 0) Fail(3, ChildReport::kDirectory);
  execve(plan.program.c_str(), context.arguments, context.environment);
  Fail(3, ChildReport::kExec);
}

absl::Status MoveUp(UniqueFd& fd) {
  UniqueFd moved(fcntl(fd.get(), F_DUPFD_CLOEXEC, kFirstFreeFd));
  if (!moved.valid()) return ErrnoStatus(errno, "duplicate", "pipe");
  fd = std::move(moved);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Pipe> Pipe::Create() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "create", "pipe");
  Pipe pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
  METAL_RETURN_IF_ERROR(MoveUp(pipe.read));
  METAL_RETURN_IF_ERROR(MoveUp(pipe.write));
  return pipe;
}

absl::Status ChildReportStatus(const ChildReport& report, const std::string& program,
                               const std::string& directory) {
  switch (report.step) {
    case ChildReport::kStarted:
      return absl::OkStatus();
    case ChildReport::kDirectory:
      return ErrnoStatus(report.error, "enter directory", directory);
    case ChildReport::kFork:
      return ErrnoStatus(report.error, "fork", program);
    case ChildReport::kExec:
      return ErrnoStatus(report.error, "run", program);
    case ChildReport::kSetUp:
      return ErrnoStatus(report.error, "set up child", program);
  }
  return Error(absl::StatusCode::kInternal, "run {}: unknown report", program);
}

absl::StatusOr<ChildPlan> ChildPlan::Make(const std::vector<std::string>& argv,
                                          const std::map<std::string, std::string>& environment,
                                          const std::string& directory) {
  if (argv.empty()) return Error(absl::StatusCode::kInvalidArgument, "run: no program given");
  const char* path = std::getenv("PATH");
  std::map<std::string, std::string> variables = {
      {"PATH", path == nullptr || *path == '\0' ? kDefaultPath : path},
      {"LC_ALL", "C"},
      {"TZ", "UTC"},
      {"HOME", HomeDirectory()}};
  for (const auto& [name, value] : environment) variables[name] = value;
  ChildPlan plan;
  METAL_ASSIGN_OR_RETURN(plan.program, FindProgram(argv[0], variables["PATH"]));
  plan.arguments = argv;
  for (const auto& [name, value] : variables) plan.environment.push_back(name + "=" + value);
  plan.directory = directory.empty() ? "/" : directory;
  return plan;
}

absl::StatusOr<pid_t> ForkChild(const ChildPlan& plan) {
  ChildPlan moved = plan;  // with its descriptors above those that the child assigns
  UniqueFd high[3];
  int* const sources[] = {&moved.standard_input, &moved.standard_output, &moved.standard_error};
  for (size_t i = 0; i < std::size(sources); ++i) {
    high[i] = UniqueFd(fcntl(*sources[i], F_DUPFD_CLOEXEC, kFirstFreeFd));
    if (!high[i].valid()) return ErrnoStatus(errno, "duplicate descriptor for", plan.program);
    *sources[i] = high[i].get();
  }
  const std::vector<char*> arguments = Pointers(moved.arguments);
  const std::vector<char*> environment = Pointers(moved.environment);
  const ChildContext context{moved, arguments.data(), environment.data(), getpid()};

  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // no handler of ours may run in the child
  const pid_t pid = fork();
  if (pid == 0) RunChild(context);
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return ErrnoStatus(error, "fork", plan.program);
  if (!plan.daemon)
    setpgid(pid,
            pid);  // so that the group exists before anyone signals it; fails once exec is done
  return pid;
}

}  // namespace metal::base
