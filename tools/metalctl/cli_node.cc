#include "tools/metalctl/cli_commands.h"

namespace metal::ctl {
namespace {

constexpr const char* kLook = "Look";
constexpr const char* kDisks = "Disks";
constexpr const char* kOperations = "Operations";

}  // namespace

void AddObserveCommands(CLI::App& app, Invocation& invocation) {
  auto* status =
      AddCommand(&app, "status", "Show the node: PostgreSQL, WAL, archive, disks, backups, faults",
                 "status\n-o json status | jq .postgres.state");
  OnRun(status->group(kLook), invocation, ShowStatus);
  auto* watch = AddCommand(&app, "watch", "Show the status live, until Ctrl-C", "watch");
  OnRun(watch->group(kLook), invocation, WatchStatus);
  auto options = std::make_shared<EventsOptions>();
  auto* events = AddCommand(&app, "events", "Show what happened, oldest first",
                            "events -n 20\nevents -f --type postgres. --severity warning");
  events->group(kLook);
  events->add_flag("-f,--follow", options->follow, "Go on with new events, until Ctrl-C");
  events->add_option("-n,--limit", options->limit, "At most this many, the newest")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  events->add_option("--after", options->after_id, "Only events after this id")->type_name("ID");
  events->add_option("--type", options->type_prefix, "Only types that begin with this")
      ->type_name("PREFIX");
  events->add_option("--severity", options->min_severity, "Only this severity and above")
      ->check(CLI::IsMember({"info", "warning", "error", "critical"}));
  OnRun(events, invocation,
        [options](const Client& client) { return ShowEvents(client, *options); });
  auto diag = std::make_shared<DiagOptions>();
  auto* capture = AddCommand(
      &app, "diag", "Save what happened on the node: recorder, timeline, logs, status, no secrets",
      "diag\ndiag --output /tmp/db-1.tar.zst --window 2h\ndiag --output - | ssh desk 'cat > "
      "x.tar.zst'");
  capture->group(kLook);
  capture->add_option("--output", diag->output, "New file, or - (default: named after the node)")
      ->type_name("FILE");
  AddDuration(capture, "--window", &diag->window, "Records and events no older than this, 0: all");
  OnRun(capture, invocation,
        [diag](const Client& client) { return CaptureDiagnostics(client, *diag); });
  auto* capabilities =
      AddCommand(&app, "capabilities", "Show what the agent can do", "capabilities");
  OnRun(capabilities->group(kLook), invocation, ShowCapabilities);
}

void AddOperationCommands(CLI::App& app, Invocation& invocation) {
  auto* op = AddFamily(app, "op", "Look after long-running operations", kOperations);
  auto list = std::make_shared<OperationListOptions>();
  auto* list_command = AddCommand(op, "list", "List operations, newest first", "op list --running");
  list_command->add_flag("--running", list->running_only, "Only those that run");
  list_command->add_option("-n,--limit", list->limit, "At most this many")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  OnRun(list_command, invocation,
        [list](const Client& client) { return ListOperations(client, *list); });
  const auto add = [&](const std::string& name, const char* what,
                       int (*function)(const Client&, const std::string&)) {
    auto operation = std::make_shared<std::string>();
    auto* command = AddCommand(op, name, what, "op " + name + " 20261122T021500Z-0001");
    command->add_option("operation", *operation, "Name, with or without operations/")->required();
    OnRun(command, invocation,
          [operation, function](const Client& client) { return function(client, *operation); });
  };
  add("show", "Show one operation", ShowOperation);
  add("watch", "Follow an operation to its end", WatchOperationCommand);
  add("cancel", "Ask an operation to stop", CancelOperation);
  auto wait = std::make_shared<OperationWaitOptions>();
  auto* wait_command =
      AddCommand(op, "wait", "Wait for an operation's end; exit code 7 when it goes on",
                 "op wait 20261122T021500Z-0001 --wait 5m");
  wait_command->add_option("operation", wait->name, "Name, with or without operations/")
      ->required();
  AddDuration(wait_command, "--wait", &wait->timeout, "Time to wait, 10 minutes at most");
  OnRun(wait_command, invocation,
        [wait](const Client& client) { return WaitForOperation(client, *wait); });
}

namespace {

void AddAcknowledge(CLI::App* disk, Invocation& invocation) {
  auto options = std::make_shared<AcknowledgeOptions>();
  auto* command = AddCommand(
      disk, "acknowledge",
      "Take a fault for known: it counts in no decision until it is seen again",
      "disk acknowledge media_error --reason 'sector was rewritten, scrub is clean'\n"
      "disk acknowledge wrong_device --device nvme0n1 --reason 'new drive, inventory 4711'");
  command->add_option("class", options->fault_class, "Class, as metalctl status names it")
      ->required();
  auto* subject = command->add_option(
      "subject", options->subject, "Subject, as metalctl status names it (default: the only one)");
  command->add_option("--device", options->device, "All of the class on this disk (kernel name)")
      ->excludes(subject);
  command->add_option("--reason", options->reason, "Why, for whoever looks later");
  command->add_flag("--force", options->force, "Although the fault is fatal and still seen");
  OnRun(command, invocation,
        [options](const Client& client) { return AcknowledgeFault(client, *options); });
}

}  // namespace

void AddDiskCommands(CLI::App& app, Invocation& invocation) {
  auto* disk = AddFamily(app, "disk", "Look at the disks that this node depends on", kDisks);
  OnRun(AddCommand(disk, "list", "List the disks", "disk list"), invocation, ListDisks);
  auto device = std::make_shared<std::string>();
  auto* health = AddCommand(disk, "health", "Show disks in full: SMART, probes, latency",
                            "disk health\ndisk health nvme0n1");
  health->add_option("device", *device, "Kernel name (default: all)");
  OnRun(health, invocation,
        [device](const Client& client) { return ShowDiskHealth(client, *device); });
  auto* logs =
      AddCommand(disk, "logs", "Show what a drive says of itself: SMART, errors, self-tests",
                 "disk logs nvme0n1");
  logs->add_option("device", *device, "Kernel name")->required();
  OnRun(logs, invocation,
        [device](const Client& client) { return ShowDriveLogs(client, *device); });
  OnRun(AddCommand(disk, "watch", "Show disks live, until Ctrl-C", "disk watch"), invocation,
        WatchDisks);
  AddAcknowledge(disk, invocation);
  auto probe = std::make_shared<ProbeOptions>();
  auto* command = AddCommand(disk, "probe", "Measure small reads and durable writes",
                             "disk probe\ndisk probe wal --writes 1000");
  command->add_option("role", probe->role, "The place to measure")
      ->type_name("{data,wal,repository,tablespace:OID}")
      ->capture_default_str();
  command->add_option("--reads", probe->reads, "Number of reads (default 1000)")
      ->check(CLI::Range(1, 100000));
  command->add_option("--writes", probe->writes, "Number of writes (default 200)")
      ->check(CLI::Range(1, 10000));
  AddDetach(command, &probe->follow);
  OnRun(command, invocation, [probe](const Client& client) { return ProbeDisk(client, *probe); });
}

}  // namespace metal::ctl
