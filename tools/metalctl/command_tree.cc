#include "tools/metalctl/command_tree.h"

#include <algorithm>

namespace metal::ctl {
namespace {

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_max() > 0; }
bool TakesMany(const CLI::Option& option) { return option.get_items_expected_max() > 1; }

bool Has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

const CLI::App* FindCommand(const CLI::App& command, const std::string& name) {
  for (const CLI::App* each : command.get_subcommands(nullptr)) {
    if (each->get_name() == name) return each;
  }
  return nullptr;
}

// "--name", "--name=…", "-n" or "-nVALUE" of this command or of one around it.
const CLI::Option* FindOption(const CLI::App* command, const std::string& word) {
  const bool is_long = word.rfind("--", 0) == 0;
  const std::string name = is_long ? word.substr(2, word.find('=') - 2) : word.substr(1, 1);
  for (; command != nullptr; command = command->get_parent()) {
    for (const CLI::Option* option : command->get_options(nullptr)) {
      if (Has(is_long ? option->get_lnames() : option->get_snames(), name)) return option;
    }
  }
  return nullptr;
}

std::vector<const CLI::Option*> Arguments(const CLI::App& command) {
  std::vector<const CLI::Option*> arguments;
  for (const CLI::Option* option : command.get_options(nullptr)) {
    if (option->get_positional()) arguments.push_back(option);
  }
  return arguments;
}

const CLI::Option* ArgumentAt(const CLI::App& command, size_t index) {
  const auto arguments = Arguments(command);
  if (index < arguments.size()) return arguments[index];
  if (!arguments.empty() && TakesMany(*arguments.back())) return arguments.back();
  return nullptr;
}

// Insertions, deletions, replacements, and exchanges of neighbours.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

Place FindPlace(const CLI::App& app, const std::vector<std::string>& words) {
  Place place;
  place.command = &app;
  size_t arguments = 0;
  bool more_values = false;  // an option that takes many values goes on
  for (const auto& word : words) {
    if (place.value_of != nullptr) {
      more_values = TakesMany(*place.value_of);
      place.value_of = nullptr;
    } else if (word == "--") {
      place.only_arguments = true;
      more_values = false;
    } else if (!place.only_arguments && word.size() > 1 && word[0] == '-') {
      more_values = false;
      const CLI::Option* option = FindOption(place.command, word);
      if (option == nullptr) {
        place.unknown = word;
        return place;
      }
      const bool has_value = word[1] == '-' ? word.find('=') != std::string::npos : word.size() > 2;
      if (TakesValue(*option) && !has_value) place.value_of = option;
    } else if (more_values) {
      continue;
    } else if (const CLI::App* command = FindCommand(*place.command, word)) {
      place.command = command;
      arguments = 0;
    } else if (ArgumentAt(*place.command, arguments) == nullptr) {
      place.unknown = word;
      return place;
    } else {
      ++arguments;
    }
  }
  place.argument = ArgumentAt(*place.command, arguments);
  return place;
}

std::vector<std::string> CommandNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* each : command.get_subcommands(nullptr)) {
    if (!each->get_name().empty() && !each->get_group().empty()) names.push_back(each->get_name());
  }
  return names;
}

std::vector<std::string> OptionNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* each = &command; each != nullptr; each = each->get_parent()) {
    for (const CLI::Option* option : each->get_options(nullptr)) {
      if (option->get_positional()) continue;
      const std::string name = option->get_lnames().empty() ? "-" + option->get_snames().front()
                                                            : "--" + option->get_lnames().front();
      if (!Has(names, name)) names.push_back(name);
    }
  }
  return names;
}

std::string FullCommand(const CLI::App& command) {
  std::string name = command.get_name();
  for (const CLI::App* each = command.get_parent(); each != nullptr; each = each->get_parent()) {
    name = each->get_name() + " " + name;
  }
  return name;
}

std::optional<std::string> Nearest(std::string_view word,
                                   const std::vector<std::string>& candidates) {
  constexpr size_t kFar = 3;
  const std::string* best = nullptr;
  size_t least = kFar;
  for (const auto& candidate : candidates) {
    size_t distance = EditDistance(word, candidate);
    if (word.size() >= 2 && candidate.rfind(word, 0) == 0) distance = 1;
    // A short word is near to everything.
    if (distance < least && distance < word.size()) {
      best = &candidate;
      least = distance;
    }
  }
  return best == nullptr ? std::nullopt : std::optional<std::string>(*best);
}

}  // namespace metal::ctl
