#include "fmt/format.h"
#include "tools/metalctl/cli.h"

namespace metal::ctl {
namespace {

std::string Words(const CLI::App& app) {
  std::string words;
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    if (!command->get_name().empty()) words += command->get_name() + " ";
  }
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) words += "--" + name + " ";
  }
  return words;
}

// One case for each command: "backup create) words…".
void AppendCases(const CLI::App& app, const std::string& path, std::string& out) {
  out += fmt::format("    '{}') words='{}' ;;\n", path, Words(app));
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    if (command->get_name().empty()) continue;
    AppendCases(*command, path.empty() ? command->get_name() : path + " " + command->get_name(),
                out);
  }
}

}  // namespace

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  std::string cases;
  AppendCases(app, "", cases);
  std::string out;
  if (shell == "zsh") out += "#compdef metalctl\nautoload -U +X bashcompinit && bashcompinit\n";
  out += R"(_metalctl() {
  local current="${COMP_WORDS[COMP_CWORD]}" path='' words='' word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    case "$word" in -*) continue ;; esac
    case "${COMP_WORDS[i-1]}" in --*|-o) continue ;; esac
    path="${path:+$path }$word"
  done
  case "$path" in
)";
  out += cases;
  out += R"(  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _metalctl metalctl
)";
  return out;
}

}  // namespace metal::ctl
