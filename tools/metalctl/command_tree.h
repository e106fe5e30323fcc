// Where words lead in the tree of commands: what completion and the words about a typing mistake
// stand on. Threading: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "CLI/CLI.hpp"

namespace metal::ctl {

struct Place {
  const CLI::App* command = nullptr;      // the innermost command
  const CLI::Option* value_of = nullptr;  // the next word is the value of this option
  const CLI::Option* argument = nullptr;  // the next word may be this argument of the command
  bool only_arguments = false;            // after "--"
  std::string unknown;  // the first word that leads nowhere: a command or an option
};

// Follows `words` (without the program's name) from `app`; stops at the first unknown one.
Place FindPlace(const CLI::App& app, const std::vector<std::string>& words);

// Names of the subcommands of one command, hidden ones left out.
std::vector<std::string> CommandNames(const CLI::App& command);
// "--name" (or "-n" without a long one) of the options that may follow, those of the outer commands
// too.
std::vector<std::string> OptionNames(const CLI::App& command);

// "metalctl backup show".
std::string FullCommand(const CLI::App& command);

// The candidate that `word` was most likely meant to be.
std::optional<std::string> Nearest(std::string_view word,
                                   const std::vector<std::string>& candidates);

}  // namespace metal::ctl
