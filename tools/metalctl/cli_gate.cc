#include "tools/metalctl/cli_commands.h"

namespace metal::ctl {
namespace {

void AddTermOptions(CLI::App* command, TermOptions* options, const std::string& wait) {
  command->add_option("--term", options->term, "Term, 1 or more")
      ->required()
      ->check([](const std::string& text) { return text == "0" ? "terms start at 1" : ""; })
      ->type_name("NUMBER");
  command->add_option("--orchestrator", options->orchestrator, "Who holds the term")
      ->type_name("NAME")
      ->capture_default_str();
  options->timeout = absl::Seconds(5);
  AddDuration(command, "--wait", &options->timeout, wait);
}

}  // namespace

void AddGateCommands(CLI::App& app, Invocation& invocation) {
  auto* gate =
      AddFamily(app, "gate", "Hold and lead the traffic of this host's door", "Role of the node");
  OnRun(AddCommand(gate, "status", "Show what the door does", "gate status"), invocation, ShowGate);

  auto hold = std::make_shared<HoldOptions>();
  auto* hold_command =
      AddCommand(gate, "hold", "Let clients wait until release, or until the deadline",
                 "gate hold --term 7\ngate hold --term 7 --for 10s --wait 1s --keep");
  AddTermOptions(hold_command, &hold->term, "Time for running transactions to end");
  auto length = std::make_shared<absl::Duration>(absl::ZeroDuration());
  auto* option = AddDuration(hold_command, "--for", length.get(),
                             "The hold ends by itself then (default gate.hold_max)");
  hold_command->add_flag("--keep", hold->keep_undrained,
                         "Hold what is new even when transactions go on");
  OnRun(hold_command, invocation, [hold, length, option](const Client& client) {
    if (option->count() > 0) hold->deadline = *length;
    return HoldTraffic(client, *hold);
  });

  auto release = std::make_shared<ReleaseOptions>();
  auto* release_command =
      AddCommand(gate, "release", "Lead the door to the primary and open it",
                 "gate release --term 7 db-2\ngate release --term 7 10.0.0.2 --port 5433");
  AddTermOptions(release_command, &release->term, "Time for the server to accept connections");
  release_command
      ->add_option("host", release->host, "Host of the primary, or directory of its unix socket")
      ->required()
      ->type_name("HOST");
  release_command->add_option("--port", release->port, "Its port")->capture_default_str();
  OnRun(release_command, invocation,
        [release](const Client& client) { return ReleaseTraffic(client, *release); });
}

}  // namespace metal::ctl
