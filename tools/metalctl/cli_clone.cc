// The command that makes this node a copy of another one.
#include "tools/metalctl/cli_commands.h"

namespace metal::ctl {

void AddCloneCommand(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<CloneOptions>();
  auto* command =
      AddCommand(&app, "clone", "Make this node a copy of another one, and a standby that streams",
                 "clone --from node-b:7422 --primary node-a:5432 --term 7\n"
                 "clone --from node-b:7422 --primary node-a:5432 --term 7 --replace --rate 500MiB");
  command->group("Role of the node");
  command->add_option("--from", options->source, "Transfer address of the source's agent")
      ->required()
      ->type_name("HOST:PORT");
  command->add_option("--primary", options->primary, "PostgreSQL to follow")
      ->required()
      ->type_name("HOST:PORT");
  command->add_option("--term", options->term, "Term, 1 or more")->required();
  command->add_option("--orchestrator", options->orchestrator, "Who holds the term")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_flag("--replace", options->replace,
                    "Remove the data directory that is here, if it is of the same cluster");
  AddPairs(command, "--tablespace", &options->tablespaces, "OID=PATH: where a tablespace goes");
  AddRate(command, &options->rate_limit, "Most bytes per second (default no limit)");
  command->add_option("--codec", options->codec, "Compression on the way")
      ->check(CLI::IsMember({"none", "lz4", "zstd"}))
      ->capture_default_str();
  AddDetach(command, &options->follow);
  OnRun(command, invocation,
        [options](const Client& client) { return CloneNode(client, *options); });
}

}  // namespace metal::ctl
