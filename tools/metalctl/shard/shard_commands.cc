#include "tools/metalctl/shard/shard_commands.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "agent/base/clock.h"
#include "fmt/format.h"
#include "tools/metalctl/shard/agent_shard.h"
#include "tools/metalctl/shard/auto_pilot.h"
#include "tools/metalctl/shard/procedure_commands.h"
#include "tools/metalctl/shard/shard_text.h"
#include "tools/metalctl/text_table.h"
#include "tools/metalctl/watch.h"

namespace metal::shard {
namespace {

using ctl::Client;
using ctl::kExitFailed;
using ctl::kExitInterrupted;
using ctl::kExitOk;

constexpr absl::Duration kStatusPatience = absl::Seconds(2);
constexpr absl::Duration kWatchPeriod = absl::Seconds(1);
constexpr const char* kFamilyFooter =
    R"(The file names the nodes; metalctl shard template prints one.

Exit codes beyond those of metalctl --help: shard check gives 1 when the shard has an inconsistency of
weight error (shard check --list names them all); init, replace and recover give 1 when a node is left
behind; 3 means that an agent that was needed does not answer, and for the tables that none does.

init, replace, reparent, failover and recover print each step with its duration. They keep no state:
after a run that was cut off, give the command again, or recover, from anywhere with the same file.

Examples:
  metalctl shard template > /etc/metal/shard.toml
  metalctl shard status
  metalctl shard reparent --to b
  metalctl shard --config orders.toml -o json check | jq -r '.findings[].name'

More: metalctl shard COMMAND --help)";

absl::Duration Patience(const Client& client) {
  return std::min(client.options().timeout, kStatusPatience);
}

int ShowShard(const Client& client, const ShardConfig& config, bool findings_only) {
  AgentShard shard(config, client.options());
  const std::vector<NodeView> views = shard.ReadStatuses(Patience(client));
  const std::vector<Finding> findings = Analyse(config, views);
  if (client.json()) {
    fmt::print("{}", StatusJson(config, views, findings, true));
  } else if (findings_only) {
    fmt::print("{}", FindingsText(findings, ctl::OutputOptions()));
  } else {
    fmt::print("{}", StatusText(config, views, findings, ctl::OutputOptions()));
  }
  if (std::none_of(views.begin(), views.end(),
                   [](const NodeView& view) { return view.answered; })) {
    return ctl::kExitUnreachable;
  }
  return findings_only && HasErrors(findings) ? kExitFailed : kExitOk;
}

// What `watch --auto` does after a look; the text is for the last line of the screen.
std::string ActBy(AutoPilot& pilot, const AutoChange& change, const Client& client,
                  const ShardConfig& config) {
  if (change.kind == AutoChange::Kind::kNone) return change.why.empty() ? "" : change.why + "\n";
  if (change.kind == AutoChange::Kind::kSet) {
    fmt::print("synchronous set: {}\n", change.why);
    RunProcedure(client, config, "synchronous", false,
                 [&](Procedure& procedure) { return procedure.ChangeSet(change.set); });
    return "";
  }
  const ChangeOptions options{.to = change.to};
  const auto run = [&](const char* name, auto change_lead) {
    fmt::print("{} to {}: {}\n", name, config.nodes[change.to].id, change.why);
    return RunProcedure(client, config, name, false,
                        [&](Procedure& procedure) { return (procedure.*change_lead)(options); });
  };
  int code = kExitFailed;
  if (change.kind == AutoChange::Kind::kReparent) code = run("reparent", &Procedure::Reparent);
  // A primary whose disk hangs cannot hand over in good order.
  if (change.kind == AutoChange::Kind::kFailover || (code != kExitOk && change.may_be_forced)) {
    code = run("failover", &Procedure::Failover);
  }
  if (change.kind == AutoChange::Kind::kRecover) {
    fmt::print("recover: {}\n", change.why);
    code = RunProcedure(client, config, "recover", false,
                        [](Procedure& procedure) { return procedure.Recover(); });
  }
  pilot.Ended(code == kExitOk, base::RealClock().Monotonic());
  return "";
}

int WatchShard(const Client& client, const ShardConfig& config, bool automatic) {
  AutoPilot pilot;
  AgentShard shard(config, client.options());
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  base::Clock& clock = base::RealClock();
  const ctl::InterruptGuard guard;
  while (true) {
    const base::MonotonicTime begin = clock.Monotonic();
    const std::vector<NodeView> views =
        shard.ReadStatuses(std::min(Patience(client), kWatchPeriod));
    shard.TellPeers(views, kWatchPeriod);
    const std::vector<Finding> findings = Analyse(config, views);
    std::string word;
    if (automatic) word = ActBy(pilot, pilot.Observe(config, views, begin), client, config);
    if (client.json()) {
      fmt::print("{}", StatusJson(config, views, findings, false));
    } else {
      const std::string text = word + StatusText(config, views, findings, ctl::OutputOptions());
      fmt::print("{}", terminal ? ctl::ScreenText(text) : text + "---\n");
    }
    std::fflush(stdout);
    do {
      if (ctl::InterruptGuard::Pressed()) return kExitInterrupted;
      clock.Sleep(absl::Milliseconds(50));
    } while (clock.Monotonic() - begin < kWatchPeriod);
  }
}

int ListFindingKinds() {
  ctl::TextTable table({"NAME", "WEIGHT", "MEANING"});
  for (const FindingKind& kind : FindingKinds()) {
    table.AddRow({std::string(kind.name), kind.weight == Weight::kError ? "error" : "warning",
                  std::string(kind.meaning)});
  }
  fmt::print("{}", table.ToString());
  return kExitOk;
}

void AddLookCommands(CLI::App* shard, ctl::Invocation& invocation,
                     const std::shared_ptr<std::string>& file, const OnShardFile& on_shard) {
  auto* status = ctl::AddCommand(shard, "status",
                                 "Show all nodes in one table, and what is wrong with the shard",
                                 "shard status\n-o json shard status | jq -r .primary");
  on_shard(status, [](const Client& client, const ShardConfig& config) {
    return ShowShard(client, config, false);
  });
  auto automatic = std::make_shared<bool>(false);
  auto* watch = ctl::AddCommand(
      shard, "watch",
      "Show the same live, until Ctrl-C; the agents learn how fast their peers' disks are",
      "shard watch\nshard watch --auto");
  watch->add_flag(
      "--auto", *automatic,
      "Move the lead when its node asks for that because of its disk (disk.reaction), "
      "and take a standby with a sick disk out of the synchronous set, and back when it "
      "is well and has caught up: one member at a time, the lead at most once in 10 "
      "minutes, never with fewer acknowledgements than the policy asks for; where nobody leads, "
      "let the primary lead again that came back as a standby");
  on_shard(watch, [automatic](const Client& client, const ShardConfig& config) {
    return WatchShard(client, config, *automatic);
  });
  auto list = std::make_shared<bool>(false);
  auto* check = ctl::AddCommand(shard, "check",
                                "Check the shard's invariants; exit code 1 when one does not hold",
                                "shard check\nshard check --list");
  check->add_flag("--list", *list, "Only list the names of all inconsistencies");
  ctl::OnRun(check, invocation, [file, list](const Client& client) {
    if (*list) return ListFindingKinds();
    const auto config = LoadShardConfig(*file);
    return config.ok() ? ShowShard(client, *config, true) : FailWith(client, config.status());
  });
  ctl::OnRun(ctl::AddCommand(shard, "template", "Print a shard's file with every key",
                             "shard template > /etc/metal/shard.toml"),
             invocation, [](const Client&) {
               fmt::print("{}", ShardConfigTemplate());
               return static_cast<int>(kExitOk);
             });
}

}  // namespace

void AddShardCommands(CLI::App& app, ctl::Invocation& invocation) {
  auto file = std::make_shared<std::string>();
  auto* shard =
      ctl::AddFamily(app, "shard", "Look after a shard: a primary and its standbys", "Shard");
  shard->footer(kFamilyFooter);
  shard->add_option("--config", *file, "File that names the shard's nodes")
      ->envname("METAL_SHARD")
      ->default_val("/etc/metal/shard.toml")
      ->type_name("FILE");
  const OnShardFile on_shard = [&invocation, file](CLI::App* command, ShardAction action) {
    ctl::OnRun(command, invocation, [file, action](const Client& client) {
      const auto config = LoadShardConfig(*file);
      return config.ok() ? action(client, *config) : FailWith(client, config.status());
    });
  };
  AddLookCommands(shard, invocation, file, on_shard);
  AddProcedureCommands(shard, on_shard);
  invocation.names["node"] = [file] {
    std::vector<std::string> ids;
    const auto config = LoadShardConfig(*file);
    if (!config.ok()) return ids;
    for (const ShardNode& node : config->nodes) ids.push_back(node.id);
    return ids;
  };
}

}  // namespace metal::shard
