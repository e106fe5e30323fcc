// metalctl: the operator's command line to metal-agent.
#include "tools/metalctl/cli.h"
#include "tools/metalctl/shard/shard_commands.h"

int main(int argc, char** argv) {
  return metal::ctl::RunCommandLine(argc, argv, {metal::shard::AddShardCommands});
}
