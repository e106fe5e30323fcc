#include "tools/metalctl/completion.h"

#include "tools/metalctl/command_tree.h"

namespace metal::ctl {
namespace {

constexpr const char* kFiles = ":files";

constexpr const char* kBash = R"(# bash completion of metalctl: source <(metalctl completion bash)
_metalctl() {
  local IFS=$'\n' offered
  offered=$("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  if [ "$offered" = :files ]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
  else
    COMPREPLY=($offered)
  fi
}
complete -F _metalctl metalctl
)";

constexpr const char* kZsh = R"(#compdef metalctl
# zsh completion of metalctl: source <(metalctl completion zsh), after compinit
_metalctl() {
  local -a offered
  offered=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  offered=($offered)  # an empty answer is one empty word, which would be put in
  [[ "$PREFIX" == --*=* ]] && compset -P '*='
  if [[ "$offered" == :files ]]; then
    _files
  else
    compadd -a offered
  fi
}
if [ "$funcstack[1]" = _metalctl ]; then
  _metalctl "$@"
else
  compdef _metalctl metalctl
fi
)";

// bash makes '=' and ':' words of their own.
std::vector<std::string> Glue(const std::vector<std::string>& words) {
  std::vector<std::string> glued;
  bool joins = false;
  for (const auto& word : words) {
    const bool is_break = word == "=" || word == ":";
    if ((joins || is_break) && !glued.empty()) {
      glued.back() += word;
    } else {
      glued.push_back(word);
    }
    joins = is_break;
  }
  return glued;
}

// "TEXT:{smart,fast,immediate}" → the three words.
std::vector<std::string> MembersOf(const std::string& type) {
  const size_t open = type.find('{');
  const size_t close = type.find('}');
  std::vector<std::string> members;
  if (open == std::string::npos || close == std::string::npos) return members;
  for (size_t at = open + 1; at < close;) {
    const size_t comma = std::min(type.find(',', at), close);
    members.push_back(type.substr(at, comma - at));
    at = comma + 1;
  }
  return members;
}

std::vector<std::string> ValuesOf(
    const CLI::Option& option, const CLI::App& command,
    const std::function<std::vector<std::string>(const std::string& kind)>& names) {
  const std::string type = option.get_type_name();
  if (type.find("FILE") != std::string::npos || type.find("DIRECTORY") != std::string::npos) {
    return {kFiles};
  }
  if (type == "NODE") return names("node");
  if (!option.get_positional()) return MembersOf(type);
  const std::string name = option.get_name();
  if (name == "operation") return names("operation");
  if (name == "device") return names("disk");
  const bool is_backup = name == "name" && command.get_parent() != nullptr &&
                         command.get_parent()->get_name() == "backup";
  return is_backup ? names("backup") : MembersOf(type);
}

}  // namespace

std::vector<std::string> CompleteWords(
    const CLI::App& app, std::vector<std::string> words,
    const std::function<std::vector<std::string>(const std::string& kind)>& names) {
  words = Glue(words);
  if (words.empty()) words.emplace_back();
  std::string current = words.back();
  words.pop_back();
  const Place place = FindPlace(app, words);
  if (!place.unknown.empty()) return {};
  std::vector<std::string> offered;
  const size_t equals = current.rfind("--", 0) == 0 ? current.find('=') : std::string::npos;
  if (place.value_of != nullptr) {
    offered = ValuesOf(*place.value_of, *place.command, names);
  } else if (equals != std::string::npos) {
    const Place value = FindPlace(*place.command, {current.substr(0, equals)});
    if (value.value_of != nullptr) offered = ValuesOf(*value.value_of, *place.command, names);
    current = current.substr(equals + 1);
  } else {
    if (current.rfind('-', 0) != 0) {
      offered = CommandNames(*place.command);
      if (place.argument != nullptr) {
        const auto values = ValuesOf(*place.argument, *place.command, names);
        offered.insert(offered.end(), values.begin(), values.end());
      }
    }
    if (offered.empty() && !place.only_arguments) offered = OptionNames(*place.command);
  }
  if (offered.size() == 1 && offered[0] == kFiles) return offered;
  std::erase_if(offered, [&](const std::string& word) { return word.rfind(current, 0) != 0; });
  return offered;
}

std::string CompletionScript(const std::string& shell) { return shell == "zsh" ? kZsh : kBash; }

}  // namespace metal::ctl
