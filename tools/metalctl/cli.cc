#include "tools/metalctl/cli.h"

#include <cstdlib>

#include "agent/base/units.h"
#include "agent/version.h"
#include "fmt/format.h"
#include "tools/metalctl/commands.h"

namespace metal::ctl {
namespace {

constexpr const char* kFooter = R"(
Exit codes:
  0 ok   1 failed   2 wrong arguments   3 no agent answers   4 not found
  5 refused as things stand (state, stale term, busy, permission)
  6 damaged data (suspect backup, failed verification)   130 interrupted

Examples:
  metalctl status
  metalctl --endpoint 127.0.0.1:7420 backup create
  metalctl backup restore latest --target /mnt/copy --recover standby
  metalctl -o json op list | jq .

Environment: METAL_ENDPOINT is the default of --endpoint.)";

// What the command line gives; run is set by the command that was chosen.
struct Invocation {
  ClientOptions client;
  std::string output = "table";
  double timeout_seconds = 10;
  std::function<int(const Client&)> run;
};

// Turns "10" or "2.5" seconds of an option into a duration.
void AddSeconds(CLI::App* command, const std::string& name, absl::Duration* out,
                const std::string& what) {
  command
      ->add_option_function<double>(
          name, [out](double seconds) { *out = absl::Seconds(seconds); },
          what + fmt::format(", seconds (default {})", absl::ToDoubleSeconds(*out)))
      ->check(CLI::PositiveNumber)
      ->type_name("SECONDS");
}

// "name=value" pairs, repeatable.
void AddPairs(CLI::App* command, const std::string& name, std::map<std::string, std::string>* out,
              const std::string& what, bool required = false) {
  auto* option = command->add_option_function<std::vector<std::string>>(
      name,
      [out](const std::vector<std::string>& pairs) {
        for (const auto& pair : pairs) {
          const size_t equals = pair.find('=');
          if (equals == 0 || equals == std::string::npos) {
            throw CLI::ValidationError("'" + pair + "' is not NAME=VALUE");
          }
          (*out)[pair.substr(0, equals)] = pair.substr(equals + 1);
        }
      },
      what);
  option->type_name("NAME=VALUE");
  if (required) option->required();
}

void AddDetach(CLI::App* command, FollowOptions* follow) {
  command->add_flag("--detach", follow->detach, "Print the operation's name and return at once");
}

// Registers `action` as what the command does. Options live in a shared_ptr until then.
template <typename Action>
void OnRun(CLI::App* command, Invocation& invocation, Action action) {
  command->final_callback([&invocation, action] { invocation.run = action; });
}

void AddObserveCommands(CLI::App& app, Invocation& invocation) {
  OnRun(app.add_subcommand("status",
                           "Show the node: PostgreSQL, WAL, archive, disks, backups, faults"),
        invocation, ShowStatus);
  OnRun(app.add_subcommand("watch", "Show the status live, until Ctrl-C"), invocation, WatchStatus);
  OnRun(app.add_subcommand("capabilities", "Show what the agent can do"), invocation,
        ShowCapabilities);
  auto options = std::make_shared<EventsOptions>();
  auto* events = app.add_subcommand(
      "events", "Show what happened\nExample: metalctl events -f --type postgres.");
  events->add_flag("-f,--follow", options->follow, "Go on with new events, until Ctrl-C");
  events->add_option("-n,--limit", options->limit, "At most this many")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  events->add_option("--after", options->after_id, "Only events after this id");
  events->add_option("--type", options->type_prefix, "Only types that begin with this");
  events->add_option("--severity", options->min_severity, "Only this severity and above")
      ->check(CLI::IsMember({"info", "warning", "error", "critical"}));
  OnRun(events, invocation,
        [options](const Client& client) { return ShowEvents(client, *options); });
}

void AddOperationCommands(CLI::App& app, Invocation& invocation) {
  auto* op = app.add_subcommand("op", "Look after long-running operations");
  op->require_subcommand(1);
  auto list = std::make_shared<OperationListOptions>();
  auto* list_command = op->add_subcommand("list", "List operations, newest first");
  list_command->add_flag("--running", list->running_only, "Only those that run");
  list_command->add_option("-n,--limit", list->limit, "At most this many")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  OnRun(list_command, invocation,
        [list](const Client& client) { return ListOperations(client, *list); });
  const auto add = [&](const char* name, const char* what,
                       int (*function)(const Client&, const std::string&)) {
    auto operation = std::make_shared<std::string>();
    auto* command = op->add_subcommand(name, what);
    command->add_option("operation", *operation, "Name, with or without operations/")->required();
    OnRun(command, invocation,
          [operation, function](const Client& client) { return function(client, *operation); });
  };
  add("show", "Show one operation", ShowOperation);
  add("watch", "Follow an operation to its end", WatchOperationCommand);
  add("cancel", "Ask an operation to stop", CancelOperation);
}

void AddStopOptions(CLI::App* command, const std::shared_ptr<StopOptions>& options) {
  command
      ->add_option("--mode", options->mode,
                   "smart: wait for clients; fast: end sessions; immediate: crash")
      ->check(CLI::IsMember({"smart", "fast", "immediate"}))
      ->capture_default_str();
  AddSeconds(command, "--stop-timeout", &options->timeout, "Time for the mode");
  AddDetach(command, &options->follow);
}

void AddConfigCommands(CLI::App* pg, Invocation& invocation) {
  auto* config = pg->add_subcommand("config", "Show or change managed settings");
  config->require_subcommand(1);
  auto effective = std::make_shared<bool>(false);
  auto* get = config->add_subcommand("get", "Show managed settings");
  get->add_flag("--effective", *effective, "Show all settings in force");
  OnRun(get, invocation,
        [effective](const Client& client) { return ShowConfig(client, *effective); });
  auto set = std::make_shared<SetConfigOptions>();
  auto* set_command =
      config->add_subcommand("set",
                             "Change managed settings, all or none\nExample: metalctl pg config "
                             "set work_mem=64MB --reset max_wal_size");
  AddPairs(set_command, "settings", &set->settings, "Settings to set");
  set_command->add_option("--reset", set->reset, "Settings to give back to defaults")
      ->type_name("NAME");
  set_command->add_flag("--dry-run", set->dry_run, "Only check and say what would change");
  OnRun(set_command, invocation, [set](const Client& client) { return SetConfig(client, *set); });
}

void AddPostgresCommands(CLI::App& app, Invocation& invocation) {
  auto* pg = app.add_subcommand("pg", "Control PostgreSQL");
  pg->require_subcommand(1);
  auto init = std::make_shared<InitOptions>();
  auto* init_command = pg->add_subcommand("init", "Create the data directory (checksums, SCRAM)");
  init_command->add_option("--locale", init->locale, "Locale (default C.UTF-8)");
  init_command->add_option("--encoding", init->encoding, "Encoding (default UTF8)");
  init_command->add_option("--password-file", init->password_file,
                           "File with the superuser's password");
  init_command->add_option("--wal-segment-bytes", init->wal_segment_bytes,
                           "WAL segment size (default 16 MiB)");
  AddPairs(init_command, "--set", &init->settings, "Managed settings from the start");
  AddDetach(init_command, &init->follow);
  OnRun(init_command, invocation,
        [init](const Client& client) { return InitPostgres(client, *init); });

  auto start = std::make_shared<StartOptions>();
  auto* start_command = pg->add_subcommand(
      "start", "Start PostgreSQL; as a standby unless the term makes it the primary");
  AddSeconds(start_command, "--no-progress-timeout", &start->no_progress_timeout,
             "Give up after this long without progress");
  AddDetach(start_command, &start->follow);
  OnRun(start_command, invocation,
        [start](const Client& client) { return StartPostgres(client, *start); });

  auto stop = std::make_shared<StopOptions>();
  auto* stop_command = pg->add_subcommand("stop", "Stop PostgreSQL and keep it stopped");
  AddStopOptions(stop_command, stop);
  stop_command->add_flag("--escalate", stop->escalate,
                         "After the timeout use the next harder mode");
  OnRun(stop_command, invocation,
        [stop](const Client& client) { return StopPostgres(client, *stop); });

  auto restart = std::make_shared<StopOptions>();
  auto* restart_command = pg->add_subcommand("restart", "Stop and start PostgreSQL");
  AddStopOptions(restart_command, restart);
  OnRun(restart_command, invocation,
        [restart](const Client& client) { return RestartPostgres(client, *restart); });

  OnRun(pg->add_subcommand("reload", "Check and reload the configuration files"), invocation,
        ReloadPostgres);
  OnRun(pg->add_subcommand("control", "Show pg_control"), invocation, ShowControlData);
  OnRun(pg->add_subcommand("status", "Show the node's status"), invocation, ShowStatus);
  AddConfigCommands(pg, invocation);
}

void AddTermOptions(CLI::App* command, const std::shared_ptr<TermOptions>& options,
                    bool positional) {
  command->add_option(positional ? "term" : "--term", options->term, "Term, 1 or more")
      ->required()
      ->check(CLI::PositiveNumber);
  command->add_option("--orchestrator", options->orchestrator, "Who holds the term")
      ->capture_default_str();
  AddSeconds(command, "--wait", &options->timeout, "Time for the action");
}

void AddRoleCommands(CLI::App& app, Invocation& invocation) {
  const auto add = [&](CLI::App* command, bool positional,
                       int (*function)(const Client&, const TermOptions&)) {
    auto options = std::make_shared<TermOptions>();
    AddTermOptions(command, options, positional);
    if (function == Fence)
      command->add_option("--reason", options->reason, "Shown in the status")->required();
    OnRun(command, invocation,
          [options, function](const Client& client) { return function(client, *options); });
  };
  auto* term = app.add_subcommand("term", "Begin terms");
  term->require_subcommand(1);
  add(term->add_subcommand("begin",
                           "Store a term and freeze the node\nExample: metalctl term begin 7"),
      true, BeginTerm);
  add(app.add_subcommand("promote", "Make this standby the primary of the stored term"), false,
      Promote);
  add(app.add_subcommand("fence", "Keep this node from being written to"), false, Fence);
  add(app.add_subcommand("unfence", "Lift the fence"), false, Unfence);
  auto wait = std::make_shared<WaitLsnOptions>();
  auto* wait_command = app.add_subcommand("wait-lsn", "Wait until this node has an LSN");
  wait_command->add_option("lsn", wait->lsn, "For example 16/B374D848")->required();
  wait_command->add_option("--timeline", wait->timeline, "Timeline of the LSN (default any)");
  wait_command->add_option("--mode", wait->mode, "What having it means")
      ->check(CLI::IsMember({"received", "flushed", "replayed"}))
      ->capture_default_str();
  AddSeconds(wait_command, "--wait", &wait->timeout, "Time to wait");
  OnRun(wait_command, invocation, [wait](const Client& client) { return WaitLsn(client, *wait); });
}

void AddRestoreCommand(CLI::App* backup, Invocation& invocation) {
  auto restore = std::make_shared<RestoreOptions>();
  auto* command = backup->add_subcommand("restore",
                                         "Restore a backup into an empty directory\nExample: "
                                         "metalctl backup restore latest --target /mnt/copy");
  command->add_option("name", restore->name, "Backup")->capture_default_str();
  command->add_option("--target", restore->target_directory,
                      "Directory (default: the node's data directory; needs --term)");
  AddPairs(command, "--tablespace", &restore->tablespaces, "OID=PATH: where a tablespace goes");
  command
      ->add_option("--recover", restore->recover,
                   "latest: all WAL, then read-write; immediate: the end of the backup; standby: "
                   "stay a standby")
      ->check(CLI::IsMember({"latest", "immediate", "standby"}))
      ->capture_default_str();
  command->add_option("--port", restore->port, "Port of the copy")->check(CLI::Range(1, 65535));
  command->add_option("--term", restore->term,
                      "Term, when the target is the node's data directory");
  command->add_option("--orchestrator", restore->orchestrator, "Who holds the term")
      ->capture_default_str();
  command->add_flag("--dry-run", restore->dry_run, "Only check");
  AddDetach(command, &restore->follow);
  OnRun(command, invocation,
        [restore](const Client& client) { return RestoreBackup(client, *restore); });
}

void AddBackupCommands(CLI::App& app, Invocation& invocation) {
  auto* backup = app.add_subcommand("backup", "Back up, restore, verify");
  backup->require_subcommand(1);
  auto create = std::make_shared<BackupCreateOptions>();
  auto* create_command =
      backup->add_subcommand("create", "Take a full backup of the running PostgreSQL");
  create_command->add_option("--codec", create->codec, "Compression (default: as configured)")
      ->check(CLI::IsMember({"zstd", "lz4", "none"}));
  create_command->add_option("--level", create->level, "Level of the codec");
  create_command->add_flag("--spread-checkpoint", create->spread_checkpoint,
                           "Do not hurry the first checkpoint");
  AddPairs(create_command, "--note", &create->annotations, "Free text kept with the backup");
  AddDetach(create_command, &create->follow);
  OnRun(create_command, invocation,
        [create](const Client& client) { return CreateBackup(client, *create); });

  OnRun(backup->add_subcommand("list", "List backups, newest first"), invocation, ListBackups);
  auto name = std::make_shared<std::string>("latest");
  auto* show = backup->add_subcommand("show", "Show one backup");
  show->add_option("name", *name, "Backup")->capture_default_str();
  OnRun(show, invocation, [name](const Client& client) { return ShowBackup(client, *name); });

  auto verify = std::make_shared<BackupVerifyOptions>();
  auto* verify_command =
      backup->add_subcommand("verify", "Check every frame of a backup and the WAL that it needs");
  verify_command->add_option("name", verify->name, "Backup")->capture_default_str();
  verify_command->add_flag("--restore", verify->rehearse,
                           "Also restore into a scratch directory, boot, run pg_amcheck");
  verify_command->add_option("--scratch", verify->scratch_directory, "Where to rehearse");
  AddDetach(verify_command, &verify->follow);
  OnRun(verify_command, invocation,
        [verify](const Client& client) { return VerifyBackup(client, *verify); });
  AddRestoreCommand(backup, invocation);
  OnRun(backup->add_subcommand("archive", "Show the WAL archive"), invocation, ShowArchive);
}

void AddDiskCommands(CLI::App& app, Invocation& invocation) {
  auto* disk = app.add_subcommand("disk", "Look at disks");
  disk->require_subcommand(1);
  OnRun(disk->add_subcommand("list", "List the disks that this node depends on"), invocation,
        ListDisks);
  auto device = std::make_shared<std::string>();
  auto* health =
      disk->add_subcommand("health", "Show disks in full\nExample: metalctl disk health nvme0n1");
  health->add_option("device", *device, "Kernel name (default: all)");
  OnRun(health, invocation,
        [device](const Client& client) { return ShowDiskHealth(client, *device); });
  OnRun(disk->add_subcommand("watch", "Show disks live, until Ctrl-C"), invocation, WatchDisks);
  auto probe = std::make_shared<ProbeOptions>();
  auto* probe_command = disk->add_subcommand("probe", "Measure small reads and durable writes");
  probe_command->add_option("role", probe->role, "data, wal, tablespace:OID, repository")
      ->capture_default_str();
  probe_command->add_option("--reads", probe->reads, "Number of reads (default 1000)")
      ->check(CLI::Range(1, 100000));
  probe_command->add_option("--writes", probe->writes, "Number of writes (default 200)")
      ->check(CLI::Range(1, 10000));
  AddDetach(probe_command, &probe->follow);
  OnRun(probe_command, invocation,
        [probe](const Client& client) { return ProbeDisk(client, *probe); });
}

void AddConnectionOptions(CLI::App& app, Invocation& invocation) {
  app.add_option("--endpoint", invocation.client.endpoint, "unix:PATH or HOST:PORT of the agent")
      ->envname("METAL_ENDPOINT")
      ->default_val("unix:/run/metal/agent.sock");
  auto* ca = app.add_option("--ca", invocation.client.ca, "TLS: certificate authority of the agent")
                 ->check(CLI::ExistingFile);
  auto* cert =
      app.add_option("--cert", invocation.client.certificate, "TLS: certificate of the caller")
          ->check(CLI::ExistingFile);
  auto* key = app.add_option("--key", invocation.client.key, "TLS: key of the caller")
                  ->check(CLI::ExistingFile);
  cert->needs(ca)->needs(key);
  key->needs(cert);
  app.add_option("--server-name", invocation.client.server_name,
                 "TLS: name that the agent's certificate must hold");
  app.add_option("-o,--output", invocation.output, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  app.add_option("--timeout", invocation.timeout_seconds, "Deadline of each short call, seconds")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

}  // namespace

int RunCommandLine(int argc, char** argv) {
  CLI::App app("Controls one metal-agent: PostgreSQL, backups, disks and roles of a host.",
               "metalctl");
  Invocation invocation;
  app.set_version_flag("--version", std::string("metalctl ") + kAgentVersion);
  app.require_subcommand(1);
  app.fallthrough();
  AddConnectionOptions(app, invocation);
  AddObserveCommands(app, invocation);
  AddOperationCommands(app, invocation);
  AddPostgresCommands(app, invocation);
  AddRoleCommands(app, invocation);
  AddBackupCommands(app, invocation);
  AddDiskCommands(app, invocation);
  auto* completion = app.add_subcommand(
      "completion", "Print a completion script\nExample: source <(metalctl completion bash)");
  auto shell = std::make_shared<std::string>();
  completion->add_option("shell", *shell, "bash or zsh")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh"}));
  OnRun(completion, invocation, [&app, shell](const Client&) {
    fmt::print("{}", CompletionScript(app, *shell));
    return static_cast<int>(kExitOk);
  });
  app.footer(kFooter);  // after the commands, which would inherit it
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  invocation.client.json = invocation.output == "json";
  invocation.client.timeout = absl::Seconds(invocation.timeout_seconds);
  return invocation.run(Client(invocation.client));
}

}  // namespace metal::ctl
