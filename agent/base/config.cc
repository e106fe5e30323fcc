#include "agent/base/config.h"

#include <algorithm>
#include <set>
#include <variant>

#include "agent/base/config_checks.h"
#include "agent/base/fault_reactions.h"
#include "agent/base/file.h"
#include "agent/base/option_table.h"
#include "agent/base/option_value.h"
#include "agent/base/status.h"
#include "agent/base/toml_text.h"

namespace metal::base {
namespace {

constexpr size_t kLongestFile = 1 << 20;
constexpr std::string_view kSyntaxHint =
    "HINT: the file is TOML; metal-agent --print-default-config shows one";

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({changed, row[j] + 1, row[j - 1] + 1}));
    }
  }
  return row[b.size()];
}

// "did you mean X?" for a near name, else what there is.
std::string Suggest(std::string_view given, const std::set<std::string>& known) {
  constexpr size_t kLongestCompared = 64;  // a hostile file cannot make the search expensive
  size_t nearest = 2 + given.size() / 4;
  std::string suggestion = fmt::format("known: {}", fmt::join(known, ", "));
  if (given.size() > kLongestCompared) return suggestion;
  for (const std::string& name : known) {
    const size_t distance = EditDistance(given, name);
    if (distance >= nearest) continue;
    nearest = distance;
    suggestion = fmt::format("did you mean {}?", name);
  }
  return suggestion;
}

std::set<std::string> SectionNames() {
  std::set<std::string> names;
  for (const Option& option : Options()) names.emplace(option.section);
  return names;
}

std::set<std::string> KeysOf(std::string_view section) {
  std::set<std::string> keys;
  for (const Option& option : Options()) {
    if (option.section == section) keys.emplace(option.key);
  }
  if (section == "tls") keys.emplace("role");
  if (section == "disk") keys.emplace("reactions");
  return keys;
}

absl::Status ReadRoles(const Reporter& reporter, const toml::node& node, AgentConfig& config) {
  constexpr std::string_view kHint =
      "HINT: write [[tls.role]] with san = \"...\" and role = \"...\"";
  const auto* roles = node.as_array();
  if (roles == nullptr)
    return reporter.At(node.source(), "tls.role: must be an array of tables. {}", kHint);
  for (const toml::node& element : *roles) {
    const auto* entry = element.as_table();
    if (entry == nullptr)
      return reporter.At(element.source(), "tls.role: must be a table. {}", kHint);
    AgentConfig::RoleBinding binding;
    for (const auto& [key, value] : *entry) {
      const std::set<std::string> known = {"san", "role"};
      if (!known.contains(std::string(key.str()))) {
        return reporter.At(value.source(), "tls.role.{}: unknown option. HINT: {}",
                           Shown(key.str()), Suggest(key.str(), known));
      }
      const auto* text = value.as_string();
      if (text == nullptr || text->get().empty() || HasControlCharacter(text->get())) {
        return reporter.At(value.source(), "tls.role.{}: must be a string. {}", key.str(), kHint);
      }
      (key.str() == "san" ? binding.san : binding.role) = text->get();
    }
    if (binding.san.empty())
      return reporter.At(entry->source(), "tls.role: san is missing. {}", kHint);
    if (!IsOneOf(binding.role, kTlsRoles)) {
      return reporter.At(entry->source(), "tls.role.role = \"{}\": must be one of {}. {}",
                         Shown(binding.role), kTlsRoles, kHint);
    }
    config.role_bindings.push_back(std::move(binding));
  }
  return absl::OkStatus();
}

absl::Status ReadReactions(const Reporter& reporter, const toml::node& node, AgentConfig& config) {
  const auto* table = node.as_table();
  if (table == nullptr) {
    return reporter.At(node.source(),
                       "disk.reactions: must be a section. HINT: write [disk.reactions]");
  }
  std::vector<std::string_view> known;
  for (const FaultReaction& each : kFaultReactions) known.push_back(each.fault_class);
  for (const auto& [key, value] : *table) {
    if (std::find(known.begin(), known.end(), key.str()) == known.end()) {
      return reporter.At(value.source(),
                         "disk.reactions.{}: unknown class of fault. HINT: known: {}",
                         Shown(key.str()), fmt::join(known, ", "));
    }
    const auto* text = value.as_string();
    if (text == nullptr || !IsOneOf(text->get(), kReactions)) {
      return reporter.At(value.source(), "disk.reactions.{}: must be one of {}. HINT: {} = \"{}\"",
                         key.str(), kReactions, key.str(), "drain");
    }
    config.disk_reactions[std::string(key.str())] = text->get();
  }
  return absl::OkStatus();
}

absl::Status ReadSection(const Reporter& reporter, std::string_view section,
                         const toml::table& table, AgentConfig& config) {
  for (const auto& [key, value] : table) {
    const std::string_view name = key.str();
    if (section == "tls" && name == "role") {
      METAL_RETURN_IF_ERROR(ReadRoles(reporter, value, config));
      continue;
    }
    if (section == "disk" && name == "reactions") {
      METAL_RETURN_IF_ERROR(ReadReactions(reporter, value, config));
      continue;
    }
    const auto options = Options();
    const auto option = std::find_if(options.begin(), options.end(), [&](const Option& each) {
      return each.section == section && each.key == name;
    });
    if (option == options.end()) {
      return reporter.At(value.source(), "{}.{}: unknown option. HINT: {}", section, Shown(name),
                         Suggest(name, KeysOf(section)));
    }
    METAL_RETURN_IF_ERROR(SetOption(reporter, *option, value, config));
  }
  return absl::OkStatus();
}

absl::StatusOr<AgentConfig> ReadTable(const Reporter& reporter, const toml::table& root) {
  AgentConfig config;
  METAL_RETURN_IF_ERROR(SetDefaults(config));
  const std::set<std::string> sections = SectionNames();
  for (const auto& [key, value] : root) {
    if (!sections.contains(std::string(key.str()))) {
      return reporter.At(value.source(), "{}: unknown section. HINT: {}", Shown(key.str()),
                         Suggest(key.str(), sections));
    }
    const auto* table = value.as_table();
    if (table == nullptr) {
      return reporter.At(value.source(), "{}: must be a section. HINT: write [{}]", key.str(),
                         key.str());
    }
    METAL_RETURN_IF_ERROR(ReadSection(reporter, key.str(), *table, config));
  }
  for (const Option& option : Options()) {
    const auto* target = std::get_if<std::string AgentConfig::*>(&option.target);
    if (option.rule != TextRule::kRequiredPath || target == nullptr || !(config.**target).empty())
      continue;
    return reporter.At({}, "{}.{}: must be given. HINT: add {} = \"/...\" under [{}]",
                       option.section, option.key, option.key, option.section);
  }
  return config;
}

// A value as TOML.
std::string ValueText(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}
std::string ValueText(bool value) { return value ? "true" : "false"; }
std::string ValueText(int value) { return fmt::format("{}", value); }
std::string ValueText(absl::Duration value) { return ValueText(absl::FormatDuration(value)); }
std::string ValueText(ByteCount value) { return fmt::format("\"{}\"", value.value); }

}  // namespace

absl::StatusOr<AgentConfig> ParseConfig(std::string_view toml, std::string_view file_name) {
  const Reporter reporter(file_name);
  if (const auto objection = ObjectToTomlText(toml)) {
    return Error(absl::StatusCode::kInvalidArgument, "{}:{}: {}. {}", file_name, objection->line,
                 objection->what, kSyntaxHint);
  }
  try {
    METAL_ASSIGN_OR_RETURN(AgentConfig config, ReadTable(reporter, toml::parse(toml, file_name)));
    METAL_RETURN_IF_ERROR(Annotate(CheckTogether(config), file_name));
    ResolveMachineDefaults(config);
    return config;
  } catch (const toml::parse_error& error) {  // the library's only way to report
    return reporter.At(error.source(), "{}. {}", error.description(), kSyntaxHint);
  }
}

absl::StatusOr<AgentConfig> LoadConfig(const std::string& path) {
  const auto text = ReadFile(path, kLongestFile);
  if (!text.ok()) {
    return Error(text.status().code(),
                 "read configuration: {}. HINT: metal-agent --print-default-config > {}",
                 std::string(text.status().message()), path);
  }
  return ParseConfig(*text, path);
}

std::string DefaultConfigText() {
  std::string text = "# Configuration of metal-agent (TOML). Every option with its default.\n";
  std::string_view section;
  for (const Option& option : Options()) {
    if (option.section != section) {
      section = option.section;
      text += fmt::format("\n[{}]\n", section);
    }
    std::string_view meaning = option.meaning;
    while (!meaning.empty()) {
      const size_t end = std::min(meaning.find('\n'), meaning.size());
      text += fmt::format("# {}\n", meaning.substr(0, end));
      meaning.remove_prefix(std::min(end + 1, meaning.size()));
    }
    if (!option.allowed.empty()) text += fmt::format("# Allowed: {}.\n", option.allowed);
    text += fmt::format("#{} = {}\n", option.key, option.default_value);
  }
  text += fmt::format(
      "\n# What confirmed faults of a class ask for, whatever disk.reaction is; without a line: as "
      "here,\n# at most disk.reaction. A primary fences itself for fatal classes alone.\n"
      "# Allowed: {}.\n#[disk.reactions]\n",
      kReactions);
  for (const FaultReaction& each : kFaultReactions) {
    text += fmt::format("#{} = \"{}\"\n", each.fault_class, each.reaction);
  }
  text += fmt::format(
      "\n# Roles of callers by the exact DNS or URI name in their certificate.\n# Allowed: {}.\n"
      "#[[tls.role]]\n#san = \"orchestrator.example\"\n#role = \"orchestrator\"\n",
      kTlsRoles);
  return text;
}

std::string EffectiveConfigText(const AgentConfig& config) {
  std::string text;
  std::string_view section;
  for (const Option& option : Options()) {
    if (option.section != section) {
      section = option.section;
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    }
    const std::string value =
        std::visit([&](auto target) { return ValueText(config.*target); }, option.target);
    text += fmt::format("{} = {}\n", option.key, value);
  }
  if (!config.disk_reactions.empty()) text += "\n[disk.reactions]\n";
  for (const auto& [fault_class, reaction] : config.disk_reactions) {
    text += fmt::format("{} = {}\n", fault_class, ValueText(reaction));
  }
  for (const AgentConfig::RoleBinding& binding : config.role_bindings) {
    text += fmt::format("\n[[tls.role]]\nsan = {}\nrole = {}\n", ValueText(binding.san),
                        ValueText(binding.role));
  }
  return text;
}

}  // namespace metal::base
