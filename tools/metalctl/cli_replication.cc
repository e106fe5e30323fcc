#include "tools/metalctl/cli_commands.h"

namespace metal::ctl {
namespace {

constexpr const char* kReplication = "Replication";

void AddTerm(CLI::App* command, TermOptions* options, const char* wait) {
  command->add_option("--term", options->term, "Term, 1 or more")
      ->required()
      ->check([](const std::string& text) { return text == "0" ? "terms start at 1" : ""; })
      ->type_name("NUMBER");
  command->add_option("--orchestrator", options->orchestrator, "Who holds the term")
      ->type_name("NAME")
      ->capture_default_str();
  AddDuration(command, "--wait", &options->timeout, wait);
}

void AddDemoteCommands(CLI::App& app, Invocation& invocation) {
  auto demote = std::make_shared<DemoteOptions>();
  auto* command = AddCommand(&app, "demote", "Make this primary a standby, in a planned way",
                             "demote --term 8 --prepare\ndemote --term 8");
  AddTerm(command->group(kReplication), &demote->term, "Time for the shutdown");
  command->add_flag("--prepare", demote->prepare,
                    "Only write the checkpoint that makes the demotion short");
  AddDetach(command, &demote->follow);
  OnRun(command, invocation, [demote](const Client& client) { return Demote(client, *demote); });

  auto undo = std::make_shared<TermOptions>();
  auto* undo_command = AddCommand(&app, "undo-demote", "Take back the demotion of the same term",
                                  "undo-demote --term 8");
  AddTerm(undo_command->group(kReplication), undo.get(), "Time to become the primary");
  OnRun(undo_command, invocation,
        [undo](const Client& client) { return UndoDemote(client, *undo); });
}

void AddFollowCommand(CLI::App& app, Invocation& invocation) {
  auto follow = std::make_shared<FollowPrimaryOptions>();
  auto* command = AddCommand(&app, "follow", "Make this standby follow a primary",
                             "follow 10.1.0.2:5432 --term 8\nfollow /run/metal:5432 --term 8");
  command->group(kReplication);
  command->add_option("primary", follow->primary, "Host and port of the primary's PostgreSQL")
      ->required()
      ->type_name("HOST:PORT");
  AddTerm(command, &follow->term, "Time for the action");
  command->add_option("--slot", follow->slot, "Slot on the primary (default metal_NODE)")
      ->type_name("NAME");
  command->add_flag("--without-slot", follow->without_slot, "Follow without a slot");
  OnRun(command, invocation,
        [follow](const Client& client) { return FollowPrimary(client, *follow); });
}

void AddSynchronousCommand(CLI::App& app, Invocation& invocation) {
  auto set = std::make_shared<SynchronousOptions>();
  auto expected = std::make_shared<std::string>();
  auto* command = AddCommand(&app, "synchronous", "Set which standbys must acknowledge commits",
                             "synchronous node-b node-c --count 1 --term 8\nsynchronous --term 8");
  command->group(kReplication);
  command->add_option("standbys", set->standbys, "Names of nodes; none: no commit waits")
      ->type_name("NODE");
  AddTerm(command, &set->term, "Time for the standbys to catch up");
  command->add_option("--count", set->count, "How many must acknowledge")->capture_default_str();
  command->add_flag("--first", set->first, "The first ones in this order instead of any");
  command->add_flag("--accept-data-loss", set->accept_data_loss,
                    "Ask for less although standbys of the old policy do not learn of it");
  auto* option = command->add_option("--expected", *expected,
                                     "Only if this is the value now (default: as the status says)");
  OnRun(command, invocation, [set, expected, option](const Client& client) {
    if (option->count() > 0) set->expected = *expected;
    return SetSynchronous(client, *set);
  });
}

}  // namespace

void AddReplicationCommands(CLI::App& app, Invocation& invocation) {
  AddDemoteCommands(app, invocation);
  AddFollowCommand(app, invocation);
  AddSynchronousCommand(app, invocation);
  auto slots = std::make_shared<SlotsOptions>();
  auto* command = AddCommand(&app, "slots", "Make and drop replication slots until they are these",
                             "slots metal_node_b metal_node_c --term 8");
  command->group(kReplication);
  command->add_option("slots", slots->slots, "All slots that the agent is to keep")
      ->type_name("SLOT");
  AddTerm(command, &slots->term, "Time for the action");
  OnRun(command, invocation,
        [slots](const Client& client) { return ReconcileSlots(client, *slots); });

  auto* replay = AddFamily(app, "replay", "Pause and resume replay on a standby", kReplication);
  OnRun(AddCommand(replay, "pause", "Stop replaying; WAL is still received", "replay pause"),
        invocation, PauseReplay);
  OnRun(AddCommand(replay, "resume", "Replay again", "replay resume"), invocation, ResumeReplay);
  auto* receiver =
      AddFamily(app, "receiver", "Stop and start a standby's WAL receiver", kReplication);
  OnRun(AddCommand(receiver, "stop", "Receive and acknowledge nothing more", "receiver stop"),
        invocation, StopReceiver);
  OnRun(AddCommand(receiver, "start", "Follow again what was followed", "receiver start"),
        invocation, StartReceiver);
}

}  // namespace metal::ctl
