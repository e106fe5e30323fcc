#include "tools/metalctl/cli_commands.h"

namespace metal::ctl {
namespace {

constexpr const char* kPostgres = "PostgreSQL";
constexpr const char* kRoles = "Role of the node";

void AddStopOptions(CLI::App* command, const std::shared_ptr<StopOptions>& options) {
  command
      ->add_option("--mode", options->mode,
                   "smart: wait for clients; fast: end sessions; immediate: crash")
      ->check(CLI::IsMember({"smart", "fast", "immediate"}))
      ->capture_default_str();
  AddDuration(command, "--stop-timeout", &options->timeout, "Time for the mode");
  AddDetach(command, &options->follow);
}

void AddConfigCommands(CLI::App* pg, Invocation& invocation) {
  auto* config = pg->add_subcommand("config", "Show or change managed settings")->group("Commands");
  config->require_subcommand(1)->footer("More: metalctl pg config COMMAND --help");
  auto effective = std::make_shared<bool>(false);
  auto* get = AddCommand(config, "get", "Show managed settings",
                         "pg config get\npg config get --effective");
  get->add_flag("--effective", *effective, "Show all settings in force");
  OnRun(get, invocation,
        [effective](const Client& client) { return ShowConfig(client, *effective); });
  auto set = std::make_shared<SetConfigOptions>();
  auto* command = AddCommand(config, "set", "Change managed settings, all or none",
                             "pg config set work_mem=64MB --reset max_wal_size\n"
                             "pg config set shared_buffers=8GB --dry-run");
  AddPairs(command, "settings", &set->settings, "Settings to set");
  command->add_option("--reset", set->reset, "Settings to give back to defaults")
      ->type_name("NAME");
  command->add_flag("--dry-run", set->dry_run, "Only check and say what would change");
  OnRun(command, invocation, [set](const Client& client) { return SetConfig(client, *set); });
}

void AddInitCommand(CLI::App* pg, Invocation& invocation) {
  auto init = std::make_shared<InitOptions>();
  auto* command = AddCommand(pg, "init", "Create the data directory (checksums, SCRAM)",
                             "pg init --password-file /root/postgres.pw\n"
                             "pg init --locale en_US.UTF-8 --set shared_buffers=8GB");
  command->add_option("--locale", init->locale, "Locale (default C.UTF-8)");
  command->add_option("--encoding", init->encoding, "Encoding (default UTF8)");
  command->add_option("--password-file", init->password_file, "File with the superuser's password")
      ->type_name("FILE");
  command
      ->add_option("--wal-segment-bytes", init->wal_segment_bytes,
                   "WAL segment size (default 16777216)")
      ->type_name("BYTES");
  AddPairs(command, "--set", &init->settings, "Managed settings from the start");
  AddDetach(command, &init->follow);
  OnRun(command, invocation, [init](const Client& client) { return InitPostgres(client, *init); });
}

void AddTermCommand(CLI::App* command, Invocation& invocation, const std::string& term,
                    int (*function)(const Client&, const TermOptions&)) {
  auto options = std::make_shared<TermOptions>();
  command->add_option(term, options->term, "Term, 1 or more")
      ->required()
      ->check([](const std::string& text) { return text == "0" ? "terms start at 1" : ""; })
      ->type_name("NUMBER");
  command->add_option("--orchestrator", options->orchestrator, "Who holds the term")
      ->type_name("NAME")
      ->capture_default_str();
  if (function != RenewLease)
    AddDuration(command, "--wait", &options->timeout, "Time for the action");
  if (function == RenewLease) {
    AddDuration(command, "--ttl", &options->lease_ttl, "Time that it lasts from now, 1s to 5m")
        ->required();
  }
  if (function == Promote) {
    AddDuration(command, "--lease-ttl", &options->lease_ttl,
                "Begin with a lease that must be renewed within this time, 1s to 5m");
  }
  if (function == Fence) {
    command->add_option("--reason", options->reason, "Shown in the status")
        ->required()
        ->type_name("WORDS");
  }
  OnRun(command, invocation,
        [options, function](const Client& client) { return function(client, *options); });
}

void AddRewindCommand(CLI::App& app, Invocation& invocation) {
  auto rewind = std::make_shared<RewindOptions>();
  auto* command =
      AddCommand(&app, "rewind", "Make a node whose WAL left the primary's history its standby",
                 "rewind --from 10.1.0.2:5432 --term 8 --dry-run\n"
                 "rewind --from /run/metal:5432 --term 8\n"
                 "rewind --from 10.1.0.2:5432 --term 8 --on-failure clone "
                 "--clone-from 10.1.0.3:7422");
  command->group(kRoles);
  command->add_option("--from", rewind->from, "Host and port of the primary's PostgreSQL")
      ->required()
      ->type_name("HOST:PORT");
  command->add_option("--term", rewind->term.term, "Term, 1 or more")
      ->required()
      ->type_name("NUMBER");
  command->add_option("--orchestrator", rewind->term.orchestrator, "Who holds the term")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--slot", rewind->slot, "Slot on the primary (default metal_NODE)")
      ->type_name("NAME");
  command->add_flag("--dry-run", rewind->dry_run, "Only say whether it is needed and possible");
  command
      ->add_option("--on-failure", rewind->on_failure,
                   "When it cannot be rewound: keep the directory, or replace it by a copy")
      ->check(CLI::IsMember({"quarantine", "clone"}))
      ->capture_default_str();
  command
      ->add_option("--clone-from", rewind->clone_source,
                   "Transfer address of the agent that is copied from then")
      ->type_name("HOST:PORT");
  AddRate(command, &rewind->rate_limit, "Most bytes per second of that copy (default no limit)");
  AddDetach(command, &rewind->follow);
  OnRun(command, invocation, [rewind](const Client& client) { return Rewind(client, *rewind); });
}

}  // namespace

void AddPostgresCommands(CLI::App& app, Invocation& invocation) {
  auto* pg = AddFamily(app, "pg", "Control PostgreSQL", kPostgres);
  AddInitCommand(pg, invocation);
  auto start = std::make_shared<StartOptions>();
  auto* start_command =
      AddCommand(pg, "start", "Start PostgreSQL; as a standby unless the term makes it the primary",
                 "pg start\npg start --no-progress-timeout 5m");
  AddDuration(start_command, "--no-progress-timeout", &start->no_progress_timeout,
              "Give up after this long without progress");
  AddDetach(start_command, &start->follow);
  OnRun(start_command, invocation,
        [start](const Client& client) { return StartPostgres(client, *start); });

  auto stop = std::make_shared<StopOptions>();
  auto* stop_command = AddCommand(pg, "stop", "Stop PostgreSQL and keep it stopped",
                                  "pg stop\npg stop --mode smart --stop-timeout 2m --escalate");
  AddStopOptions(stop_command, stop);
  stop_command->add_flag("--escalate", stop->escalate,
                         "After the timeout use the next harder mode");
  OnRun(stop_command, invocation,
        [stop](const Client& client) { return StopPostgres(client, *stop); });

  auto restart = std::make_shared<StopOptions>();
  auto* restart_command =
      AddCommand(pg, "restart", "Stop and start PostgreSQL", "pg restart\npg restart --mode smart");
  AddStopOptions(restart_command, restart);
  OnRun(restart_command, invocation,
        [restart](const Client& client) { return RestartPostgres(client, *restart); });

  OnRun(AddCommand(pg, "reload", "Check and reload the configuration files", "pg reload"),
        invocation, ReloadPostgres);
  OnRun(AddCommand(pg, "control", "Show pg_control", "pg control"), invocation, ShowControlData);
  OnRun(AddCommand(pg, "status", "Show the node's status, as metalctl status does", "pg status"),
        invocation, ShowStatus);
  AddConfigCommands(pg, invocation);
}

void AddRoleCommands(CLI::App& app, Invocation& invocation) {
  auto* term = AddFamily(app, "term", "Begin terms", kRoles);
  AddTermCommand(AddCommand(term, "begin", "Store a term and freeze the node", "term begin 7"),
                 invocation, "term", BeginTerm);
  auto* promote = AddCommand(&app, "promote", "Make this standby the primary of the stored term",
                             "term begin 7\npromote --term 7 --wait 2m");
  AddTermCommand(promote->group(kRoles), invocation, "--term", Promote);
  auto* fence = AddCommand(&app, "fence", "Keep this node from being written to",
                           "fence --term 7 --reason 'moved to node-b'");
  AddTermCommand(fence->group(kRoles), invocation, "--term", Fence);
  auto* unfence = AddCommand(&app, "unfence", "Lift the fence", "unfence --term 8");
  AddTermCommand(unfence->group(kRoles), invocation, "--term", Unfence);
  auto* lease = AddFamily(app, "lease", "Keep a primary with a lease", kRoles);
  AddTermCommand(AddCommand(lease, "renew",
                            "Renew the primary's lease, or give it one; a primary whose lease "
                            "runs out becomes a standby",
                            "lease renew --term 7 --ttl 10s"),
                 invocation, "--term", RenewLease);
  AddRewindCommand(app, invocation);
  auto wait = std::make_shared<WaitLsnOptions>();
  auto* command =
      AddCommand(&app, "wait-lsn", "Wait until this node has an LSN; exit code 7 when it has not",
                 "wait-lsn 16/B374D848 --wait 500ms\nwait-lsn 16/B374D848 --mode flushed");
  command->group(kRoles);
  command->add_option("lsn", wait->lsn, "For example 16/B374D848")->required()->type_name("LSN");
  command->add_option("--timeline", wait->timeline, "Timeline of the LSN (default any)");
  command->add_option("--mode", wait->mode, "What having it means")
      ->check(CLI::IsMember({"received", "flushed", "replayed"}))
      ->capture_default_str();
  AddDuration(command, "--wait", &wait->timeout, "Time to wait");
  OnRun(command, invocation, [wait](const Client& client) { return WaitLsn(client, *wait); });
}

}  // namespace metal::ctl
