#include "tools/metalctl/shard/procedure_commands.h"

#include <unistd.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"
#include "tools/metalctl/shard/agent_shard.h"
#include "tools/metalctl/shard/findings.h"
#include "tools/metalctl/shard/procedure.h"
#include "tools/metalctl/shard/shard_text.h"

namespace metal::shard {
namespace {

using Json = nlohmann::ordered_json;

Json ResultJson(std::string_view name, const Procedure& procedure,
                const std::vector<Finding>& findings, absl::Duration took) {
  const auto primary = FindPrimary(procedure.views());
  Json json = {{"procedure", name},
               {"primary", primary ? Json(procedure.views()[*primary].id) : Json(nullptr)},
               {"term", std::to_string(HighestTerm(procedure.views()))},
               {"seconds", absl::ToDoubleSeconds(took)},
               {"steps", Json::array()},
               {"left_behind", procedure.left_behind()},
               {"findings", Json::array()}};
  for (const StepRecord& step : procedure.steps()) {
    json["steps"].push_back({{"name", step.name},
                             {"nodes", step.nodes},
                             {"seconds", absl::ToDoubleSeconds(step.took)},
                             {"result", step.result},
                             {"error", step.error}});
  }
  for (const Finding& each : findings) {
    json["findings"].push_back(
        {{"name", each.kind->name}, {"node", each.node}, {"message", each.message}});
  }
  return json;
}

}  // namespace

int RunProcedure(const ctl::Client& client, const ShardConfig& config, std::string_view name,
                 bool whole, const ProcedureBody& body) {
  AgentShard shard(config, client.options());
  std::unique_ptr<StepLog> log;
  if (client.json()) {
    log = std::make_unique<JsonStepLog>();
  } else {
    log = std::make_unique<TextStepLog>(isatty(STDOUT_FILENO) != 0);
  }
  Procedure procedure(config, shard, *log, ctl::NewRequestId().substr(0, 8));
  const base::MonotonicTime begin = shard.clock().Monotonic();
  const absl::Status status = body(procedure);
  const absl::Duration took = shard.clock().Monotonic() - begin;
  const std::vector<Finding> findings = procedure.views().size() == config.nodes.size()
                                            ? Analyse(config, procedure.views())
                                            : std::vector<Finding>();
  if (client.json()) {
    fmt::print("{}\n", ResultJson(name, procedure, findings, took)
                           .dump(2, ' ', false, Json::error_handler_t::replace));
  }
  if (!status.ok()) return FailWith(client, base::Annotate(status, name));
  if (!client.json()) {
    const auto primary = FindPrimary(procedure.views());
    fmt::print("primary {} of term {}, {:.3f} s\n{}",
               primary ? procedure.views()[*primary].id : "none", HighestTerm(procedure.views()),
               absl::ToDoubleSeconds(took), FindingsText(findings, ctl::OutputOptions()));
  }
  return whole && !procedure.left_behind().empty() ? ctl::kExitFailed : ctl::kExitOk;
}

namespace {

// --to NODE as an index; nullopt when it is not given.
absl::StatusOr<std::optional<size_t>> NodeNamed(const ShardConfig& config, const std::string& id) {
  if (id.empty()) return std::optional<size_t>();
  const auto index = config.Find(id);
  if (index) return index;
  return base::Error(absl::StatusCode::kNotFound, "no node {} in {}. HINT: there are {}", id,
                     config.file, config.Ids());
}

struct ChangeArguments {
  std::string to;
  bool accept_data_loss = false;
};

using Change = absl::Status (Procedure::*)(const ChangeOptions&);

ShardAction ChangeAction(std::string_view name, std::shared_ptr<ChangeArguments> arguments,
                         Change change) {
  return [name, arguments, change](const ctl::Client& client, const ShardConfig& config) {
    const auto to = NodeNamed(config, arguments->to);
    if (!to.ok()) return FailWith(client, to.status());
    return RunProcedure(client, config, name, false, [&](Procedure& procedure) {
      return (procedure.*change)({*to, arguments->accept_data_loss});
    });
  };
}

void AddCloneCommands(CLI::App* shard, const OnShardFile& on_shard) {
  struct InitArguments {
    std::map<std::string, std::string> settings;
    std::string password_file;
  };
  auto first = std::make_shared<InitArguments>();
  auto* init = ctl::AddCommand(
      shard, "init", "Make a new shard: a database on the first node, copies on the others",
      "shard init --password-file /root/postgres.pw --set shared_buffers=8GB");
  init->add_option("--password-file", first->password_file, "File with the superuser's password")
      ->type_name("FILE");
  ctl::AddPairs(init, "--set", &first->settings, "Managed settings from the start");
  on_shard(init, [first](const ctl::Client& client, const ShardConfig& config) {
    InitOptions options{.settings = first->settings, .password = ""};
    if (!first->password_file.empty()) {
      const auto password = base::ReadFile(first->password_file, 4096);
      if (!password.ok()) return FailWith(client, password.status());
      options.password = password->substr(0, password->find('\n'));
    }
    return RunProcedure(client, config, "init", true,
                        [&](Procedure& procedure) { return procedure.Init(options); });
  });

  struct ReplaceArguments {
    std::string node;
    bool force = false;
  };
  auto replaced = std::make_shared<ReplaceArguments>();
  auto* replace = ctl::AddCommand(shard, "replace",
                                  "Wipe a standby and clone it from another node of the shard",
                                  "shard replace c");
  replace->add_option("node", replaced->node, "The standby")->required()->type_name("NODE");
  replace->add_flag("--force", replaced->force, "Although commits wait until it streams again");
  on_shard(replace, [replaced](const ctl::Client& client, const ShardConfig& config) {
    const auto node = NodeNamed(config, replaced->node);
    if (!node.ok()) return FailWith(client, node.status());
    return RunProcedure(client, config, "replace", true, [&](Procedure& procedure) {
      return procedure.Replace(**node, replaced->force);
    });
  });
}

}  // namespace

int FailWith(const ctl::Client& client, const absl::Status& status) {
  const auto code = static_cast<grpc::StatusCode>(status.code());
  ctl::Error error = ctl::ErrorFrom(ctl::CodeName(code), std::string(status.message()));
  if (const auto reason = base::GetReason(status)) {
    error.reason = reason->reason;
    error.metadata = reason->metadata;
  }
  const bool no_answer = absl::IsUnavailable(status) && error.reason.empty();
  return client.Fail(error, no_answer ? ctl::kExitUnreachable : ctl::ExitCodeOf(code));
}

void AddProcedureCommands(CLI::App* shard, const OnShardFile& on_shard) {
  AddCloneCommands(shard, on_shard);
  auto planned = std::make_shared<ChangeArguments>();
  auto* reparent = ctl::AddCommand(
      shard, "reparent", "Hand the lead over to a standby, without losing a commit",
      "shard reparent --to b\n-o json shard reparent | jq '.steps[] | {name, seconds}'");
  reparent->add_option("--to", planned->to, "The next primary (default: the standby with most WAL)")
      ->type_name("NODE");
  on_shard(reparent, ChangeAction("reparent", planned, &Procedure::Reparent));

  auto emergency = std::make_shared<ChangeArguments>();
  auto* failover = ctl::AddCommand(
      shard, "failover",
      "Promote a standby when the primary is lost, once the answers prove that no acknowledged "
      "commit is",
      "shard failover\nshard failover --to c\nshard failover --to c --accept-data-loss");
  failover->add_option("--to", emergency->to, "The next primary (default: the node with most WAL)")
      ->type_name("NODE");
  failover->add_flag("--accept-data-loss", emergency->accept_data_loss,
                     "Lead although acknowledged commits may be on missing nodes alone");
  on_shard(failover, ChangeAction("failover", emergency, &Procedure::Failover));

  auto accepted = std::make_shared<bool>(false);
  auto* recover = ctl::AddCommand(
      shard, "recover",
      "Finish or undo what an earlier run left behind, and make every node follow the primary",
      "shard recover");
  recover->add_flag("--accept-data-loss", *accepted,
                    "Put a policy in force that asks for less than the one before, although "
                    "standbys of that one do not learn of it");
  on_shard(recover, [accepted](const ctl::Client& client, const ShardConfig& config) {
    return RunProcedure(client, config, "recover", true, [accepted](Procedure& procedure) {
      if (*accepted) procedure.AcceptDataLoss();
      return procedure.Recover();
    });
  });
}

}  // namespace metal::shard
