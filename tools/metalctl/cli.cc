#include "tools/metalctl/cli.h"

#include <algorithm>
#include <cstdio>

#include "agent/version.h"
#include "fmt/format.h"
#include "tools/metalctl/cli_commands.h"
#include "tools/metalctl/command_tree.h"
#include "tools/metalctl/completion.h"
#include "tools/metalctl/known_names.h"

namespace metal::ctl {
namespace {

constexpr const char* kFooter = R"(
Exit codes:
  0 ok   1 failed or cancelled   2 wrong arguments   3 no agent answers   4 not found
  5 refused as things stand (state, stale term, busy, permission; try again or change them)
  6 damaged data (a suspect backup was made, verified or restored; a failed verification)
  7 not done in the time given (wait-lsn, a stop, a promotion)   130 interrupted

With -o json standard output is one JSON document: of a command that follows an operation, the
operation as it ended; of watches and events, one document a line. Standard error then has one
JSON object a line: {"progress":{…}} while an operation runs, {"note":{"message"}}, and
{"error":{"code","reason","message","hint","metadata"}}. 64-bit numbers are JSON strings.

Lengths of time are 500ms, 0.5s, 30 (seconds), 2m, 1m30s. Ctrl-C during an operation asks whether to
cancel it; without a terminal the operation goes on.

Examples:
  metalctl status
  metalctl --endpoint 127.0.0.1:7420 backup create
  metalctl backup restore latest --target /mnt/copy --recover standby
  metalctl -o json op list | jq .

Environment: METAL_ENDPOINT is the default of --endpoint; NO_COLOR turns colours off.)";

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
  app.add_option("-o,--output", invocation.output, "table for people, json for programs")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  AddDuration(&app, "--timeout", &invocation.client.timeout, "Deadline of each short call");
}

void AddCompletionCommand(CLI::App& app, Invocation& invocation) {
  auto* completion = AddCommand(&app, "completion", "Print a completion script",
                                "completion bash > /etc/bash_completion.d/metalctl\n"
                                "completion zsh > /usr/local/share/zsh/site-functions/_metalctl");
  completion->group("Shell");
  auto shell = std::make_shared<std::string>();
  completion->add_option("shell", *shell, "bash or zsh")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh"}));
  OnRun(completion, invocation, [shell](const Client&) {
    fmt::print("{}", CompletionScript(*shell));
    return static_cast<int>(kExitOk);
  });
}

void BuildTree(CLI::App& app, Invocation& invocation, const std::vector<AddBranch>& more) {
  app.set_version_flag("--version", std::string("metalctl ") + kAgentVersion);
  app.require_subcommand(1);
  app.fallthrough();
  AddConnectionOptions(app, invocation);
  AddObserveCommands(app, invocation);
  AddOperationCommands(app, invocation);
  AddPostgresCommands(app, invocation);
  AddRoleCommands(app, invocation);
  AddReplicationCommands(app, invocation);
  AddGateCommands(app, invocation);
  AddCloneCommand(app, invocation);
  AddBackupCommands(app, invocation);
  AddDiskCommands(app, invocation);
  for (const AddBranch branch : more) branch(app, invocation);
  AddCompletionCommand(app, invocation);
  app.footer(kFooter);  // after the commands, which would inherit it
}

std::string Joined(const std::vector<std::string>& words) {
  std::string joined;
  for (const auto& word : words) joined += (joined.empty() ? "" : ", ") + word;
  return joined;
}

// What was wrong with the words, and the next step.
Error UsageError(const CLI::App& app, const std::vector<std::string>& words,
                 const CLI::ParseError& parse_error) {
  const Place place = FindPlace(app, words);
  const std::string command = FullCommand(*place.command);
  const std::vector<std::string> commands = CommandNames(*place.command);
  const std::string help = command + " --help";
  if (!place.unknown.empty()) {
    const bool is_option = place.unknown[0] == '-';
    const auto nearest = Nearest(place.unknown.substr(0, place.unknown.find('=')),
                                 is_option ? OptionNames(*place.command) : commands);
    const char* what = is_option ? "no option" : commands.empty() ? "no argument" : "no command";
    return ErrorFrom("USAGE",
                     fmt::format("{} has {} '{}'. HINT: {}{}", command, what, place.unknown,
                                 nearest ? "did you mean '" + *nearest + "'? " : "", help));
  }
  if (!commands.empty()) {
    return ErrorFrom(
        "USAGE", fmt::format("{} needs a command: {}. HINT: {}", command, Joined(commands), help));
  }
  Error error = ErrorFrom("USAGE", parse_error.what());
  if (error.hint.empty()) error.hint = help;
  return error;
}

// True when the words ask for JSON, as far as they can be told apart.
bool AsksForJson(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--output=json" || words[i] == "-ojson") return true;
    if ((words[i] == "-o" || words[i] == "--output") && i + 1 < words.size()) {
      return words[i + 1] == "json";
    }
  }
  return false;
}

int Complete(CLI::App& app, const Invocation& invocation, const std::vector<std::string>& words) {
  const auto names = [&](const std::string& kind) {
    // Parsed only for the options of the connection; what is missing does not matter.
    std::vector<std::string> reversed(words.rbegin(), words.rend());
    if (!reversed.empty()) reversed.erase(reversed.begin());
    try {
      app.parse(reversed);
    } catch (const CLI::ParseError&) {
    }
    const auto known = invocation.names.find(kind);
    return known == invocation.names.end() ? KnownNames(invocation.client, kind) : known->second();
  };
  for (const auto& word : CompleteWords(app, words, names)) fmt::print("{}\n", word);
  return kExitOk;
}

}  // namespace

int RunCommandLine(int argc, char** argv, const std::vector<AddBranch>& more) {
  CLI::App app(
      "Controls one metal-agent (PostgreSQL, backups, disks and roles of a host), or a shard of "
      "them.",
      "metalctl");
  Invocation invocation;
  BuildTree(app, invocation, more);
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (!words.empty() && words[0] == kCompleteCommand) {
    return Complete(app, invocation, {words.begin() + 1, words.end()});
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    const Error usage = UsageError(app, words, error);
    fmt::print(stderr, "{}", AsksForJson(words) ? ErrorJson(usage) + "\n" : ErrorText(usage));
    return kExitUsage;
  }
  invocation.client.json = invocation.output == "json";
  const Client client(invocation.client);
  std::string problem;
  int code = kExitFailed;
  try {
    code = invocation.run(client);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      problem = "standard output cannot be written";
  } catch (const std::exception& error) {  // of fmt, when the output cannot be written
    problem = error.what();
  }
  if (problem.empty()) return code;
  // The command may be done: its result is what is lost.
  client.Fail(ErrorFrom("UNKNOWN", "write the result: " + problem), kExitFailed);
  return code == kExitOk ? kExitFailed : code;
}

}  // namespace metal::ctl
