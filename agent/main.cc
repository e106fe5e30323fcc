// metal-agent: the composition root. Parses, loads, constructs, serves, drains; does no work of its
// own.
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "agent/assembly.h"
#include "agent/base/config.h"
#include "agent/base/exit_deadline.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/privileges.h"
#include "agent/base/status.h"
#include "agent/disk/disk_monitor.h"
#include "agent/disk/privileged.h"
#include "agent/flight_recorder.h"
#include "agent/node/emit.h"
#include "agent/node/fence/watchdog_feeder.h"
#include "agent/node/node.h"
#include "agent/observe/status_board.h"
#include "agent/pg/monitor.h"
#include "agent/pg/supervisor.h"
#include "agent/recorder/kernel_log.h"
#include "agent/rpc/services.h"
#include "agent/version.h"

namespace metal {
namespace {

constexpr absl::Duration kRpcGrace = absl::Milliseconds(300);
constexpr absl::Duration kWalGrace = absl::Milliseconds(500);
// An orderly end waits for operations that are cancelled, for a rehearsal to be cleaned up and for
// SQL that is under way: seconds on a host that is busy.
constexpr absl::Duration kExitLimit = absl::Seconds(7);
// While a probe hangs it may wait for that disk, for ever: not worth more than a second, of which
// the last line may take 0.3 s. What is cut off then is treated at the next start as after a crash.
constexpr absl::Duration kHungExitLimit = absl::Milliseconds(700);

// Blocks until SIGTERM or SIGINT; the end has a deadline from then on. SIGHUP is ignored:
// certificates are watched, configuration needs a restart.
void WaitForSignal(const sigset_t& signals, observe::StatusBoard& board,
                   base::ExitDeadline& deadline) {
  deadline.Served();
  base::UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  signalfd_siginfo info{};
  while (::read(fd.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info) ||
         info.ssi_signo == SIGHUP) {
  }
  deadline.Begin(node::ProbeHangs(*board.Get()) ? kHungExitLimit : kExitLimit);
  base::LogInfo("event=stopping signal={}", strsignal(static_cast<int>(info.ssi_signo)));
}

absl::Status Serve(const base::AgentConfig& config, const sigset_t& signals,
                   disk::PrivilegedHelper& helper, recorder::ReadKernelLog kernel_log) {
  base::ExitDeadline deadline(kExitLimit);  // the first: it outlives what may hang
  base::Clock& clock = base::RealClock();
  METAL_RETURN_IF_ERROR(base::MakeDirectories(config.state_dir, 0700));
  METAL_ASSIGN_OR_RETURN(const auto lock, LockDirectories(config));
  observe::StatusBoard board(clock);
  PublishIdentity(config, board);
  METAL_ASSIGN_OR_RETURN(const auto flight,
                         FlightRecorder::Start(config, std::move(kernel_log), clock));
  observe::EventLog& events = flight->events();
  auto terms = node::TermStore::Open({config.state_dir + "/term", config.socket + ".fence"}, clock,
                                     board, events);
  const auto lease = AttachLease(config, *terms, clock);
  METAL_ASSIGN_OR_RETURN(auto operations, flight->OpenOperations(board));
  pg::Install install(config.pg_bin_dir);
  backup::CopyPace pace(PaceOptionsOf(config), clock, events);
  disk::DiskMonitor disks(flight->DiskOptions(DiskOptionsOf(config, pace)), board, events, &helper,
                          clock);
  pg::PostgresSupervisor supervisor(
      flight->SupervisorOptions(SupervisorOptionsOf(config, *terms, *lease, lock, disks, helper)),
      install, board, events, clock);
  const auto sessions = SessionsOf(config, absl::Seconds(30));
  pg::ConfigEditor config_editor({.data_dir = config.pg_data_dir,
                                  .scratch_dir = config.state_dir,
                                  .agent = node::AgentSettingsOf(config)},
                                 install, sessions, clock);

  METAL_ASSIGN_OR_RETURN(const WalParts wal, StartWal(config, board, events, clock));
  METAL_ASSIGN_OR_RETURN(const auto gate, MakeGate(config, helper, board, events));
  node::Node node({.config = config,
                   .clock = clock,
                   .board = board,
                   .events = events,
                   .terms = *terms,
                   .operations = *operations,
                   .install = install,
                   .supervisor = supervisor,
                   .config_editor = config_editor,
                   .connect = sessions,
                   .disks = disks,
                   .wal_archive = wal.archive.get(),
                   .copy_pace = &pace,
                   .data_lock = lock,
                   .gate = gate.get(),
                   .lease = lease.get(),
                   .helper = &helper});
  METAL_RETURN_IF_ERROR(supervisor.Begin());
  node.Begin();
  const auto heartbeat = StartHeartbeat(config, *terms, node, events, board, clock);
  pg::PgMonitor monitor(MonitorOptionsOf(config, wal, board, node, *heartbeat),
                        SessionsOf(config, absl::Seconds(5)), board, clock);
  monitor.Start();
  METAL_ASSIGN_OR_RETURN(auto transfers, TransferServer::Start(config, events, node, pace, clock));

  const auto watch = flight->Watch(board, supervisor, disks);
  rpc::Services services({config, node, board, events, watch->diagnostics(), clock});
  METAL_RETURN_IF_ERROR(services.Start());
  ReportStart(config, services.address(), events);
  WaitForSignal(signals, board, deadline);
  node.StopWaiting();
  services.Shutdown(kRpcGrace);
  transfers->Stop();
  monitor.Stop();
  if (wal.server != nullptr) wal.server->Stop(kWalGrace);
  node::Emit(events, observe::Severity::kInfo, "agent.stopped", config.node_id,
             "agent ends; PostgreSQL runs on");
  return absl::OkStatus();
}

int Usage(int code) {
  std::fputs(
      "usage: metal-agent --config FILE [--check]\n"
      "       metal-agent --print-default-config | --version | --help\n",
      code == 0 ? stdout : stderr);
  return code;
}

int Main(int argc, char** argv) {
  std::string config_path = "/etc/metal/agent.toml";
  bool check = false;
  if (argc == 5 && std::string_view(argv[1]) == "--lease-guard")
    return RunLeaseGuard(argv[2], argv[3], argv[4]);
  if (argc == 5 && argv[1] == base::kProvideDirectory)
    return base::RunProvideDirectory(argv[2], argv[3], argv[4]);
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help") return Usage(0);
    if (argument == "--version") return std::printf("metal-agent %s\n", kAgentVersion) > 0 ? 0 : 1;
    if (argument == "--print-default-config")
      return std::fputs(base::DefaultConfigText().c_str(), stdout) >= 0 ? 0 : 1;
    if (argument == "--check")
      check = true;
    else if (argument == "--config" && i + 1 < argc)
      config_path = argv[++i];
    else
      return Usage(2);
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  auto config = base::LoadConfig(config_path);
  absl::Status status = config.status();
  if (status.ok() && !check) {
    base::SetLogLevel(base::ParseLogLevel(config->log_level).value_or(base::LogLevel::kInfo));
    auto kernel_log = recorder::KernelLogReader();  // needs the privileges that are dropped now
    auto helper = TakeIdentity(*config);
    status =
        helper.ok() ? Serve(*config, signals, **helper, std::move(kernel_log)) : helper.status();
  }
  if (!status.ok())
    std::fprintf(stderr, "metal-agent: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace metal

int main(int argc, char** argv) { return metal::Main(argc, argv); }
