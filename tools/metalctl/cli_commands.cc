#include "tools/metalctl/cli_commands.h"

#include <sstream>

#include "agent/base/units.h"
#include "tools/metalctl/duration.h"

namespace metal::ctl {

CLI::App* AddCommand(CLI::App* parent, const std::string& name, const std::string& what,
                     const std::string& examples) {
  // A heading of its own: CLI11 hands down that of the parent.
  CLI::App* command = parent->add_subcommand(name, what)->group("Commands");
  std::string footer = "Example:\n";
  std::istringstream lines(examples);
  for (std::string line; std::getline(lines, line);) footer += "  metalctl " + line + "\n";
  command->footer(footer + "\nOptions of every command, and exit codes: metalctl --help");
  return command;
}

CLI::App* AddFamily(CLI::App& app, const std::string& name, const std::string& what,
                    const std::string& group) {
  CLI::App* family = app.add_subcommand(name, what)->group(group)->require_subcommand(1);
  family->footer("More: metalctl " + name + " COMMAND --help");
  return family;
}

CLI::Option* AddDuration(CLI::App* command, const std::string& name, absl::Duration* out,
                         const std::string& what) {
  return command
      ->add_option_function<std::string>(
          name,
          [name, out](const std::string& text) {
            const auto duration = ParseDuration(text);
            if (!duration) {
              throw CLI::ValidationError(
                  name + ": '" + text +
                  "' is no length of time. HINT: 500ms, 0.5s, 30, 2m or 1m30s");
            }
            *out = *duration;
          },
          what + " (default " + DurationText(*out) + ")")
      ->type_name("DURATION");
}

void AddRate(CLI::App* command, uint64_t* out, const std::string& what) {
  command
      ->add_option_function<std::string>(
          "--rate",
          [out](const std::string& text) {
            const auto rate = base::ByteCount::Parse(text);
            if (!rate || rate->value == 0) {
              throw CLI::ValidationError("--rate: '" + text +
                                         "' is no size. HINT: for example 200MiB");
            }
            *out = rate->value;
          },
          what)
      ->type_name("SIZE");
}

void AddPairs(CLI::App* command, const std::string& name, std::map<std::string, std::string>* out,
              const std::string& what) {
  auto* option = command->add_option_function<std::vector<std::string>>(
      name,
      [out, name](const std::vector<std::string>& pairs) {
        for (const auto& pair : pairs) {
          const size_t equals = pair.find('=');
          if (equals == 0 || equals == std::string::npos) {
            throw CLI::ValidationError(name + ": '" + pair + "' is not NAME=VALUE");
          }
          (*out)[pair.substr(0, equals)] = pair.substr(equals + 1);
        }
      },
      what);
  option->type_name("NAME=VALUE");
}

void AddDetach(CLI::App* command, FollowOptions* follow) {
  command->add_flag("--detach", follow->detach, "Print the operation's name and return at once");
}

}  // namespace metal::ctl
