#include "agent/base/option_value.h"

#include <algorithm>
#include <optional>
#include <variant>

#include "agent/base/config_checks.h"

namespace metal::base {
namespace {

bool IsName(std::string_view text) {
  return text.size() <= 128 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

// What a string must be, or "" when it is that.
std::string Objection(const Option& option, const std::string& text) {
  if (HasControlCharacter(text)) return "must not hold control characters";
  switch (option.rule) {
    case TextRule::kAny:
      return "";
    case TextRule::kName:
      return IsName(text) ? "" : "must be letters, digits, '.', '_' and '-', at most 128";
    case TextRule::kPath:
      return text.empty() || text.front() == '/' ? "" : "must be an absolute path or empty";
    case TextRule::kRequiredPath:
      return !text.empty() && text.front() == '/' ? "" : "must be an absolute path";
    case TextRule::kListenAddress:
      return text.empty() || IsListenAddress(text) ? "" : "must be \"host:port\" or empty";
    case TextRule::kOneOf:
      return IsOneOf(text, option.allowed) ? "" : fmt::format("must be one of {}", option.allowed);
  }
  return "";
}

// Stores one value of the file (or of a default) into the configuration.
class Setter {
 public:
  Setter(const Reporter& reporter, const Option& option, const toml::node& node,
         AgentConfig& config)
      : reporter_(reporter), option_(option), node_(node), config_(config) {}

  absl::Status operator()(std::string AgentConfig::*target) {
    const auto* value = node_.as_string();
    if (value == nullptr) return Reject("must be a string");
    const std::string objection = Objection(option_, value->get());
    if (!objection.empty()) return Reject(objection);
    config_.*target = value->get();
    return absl::OkStatus();
  }
  absl::Status operator()(bool AgentConfig::*target) {
    const auto* value = node_.as_boolean();
    if (value == nullptr) return Reject("must be true or false");
    config_.*target = value->get();
    return absl::OkStatus();
  }
  absl::Status operator()(int AgentConfig::*target) {
    const auto* value = node_.as_integer();
    if (value == nullptr || !InRange(value->get())) {
      return Reject(fmt::format("must be a whole number from {}", option_.allowed));
    }
    config_.*target = static_cast<int>(value->get());
    return absl::OkStatus();
  }
  absl::Status operator()(absl::Duration AgentConfig::*target) {
    const auto* value = node_.as_string();
    absl::Duration duration;
    if (value == nullptr || !absl::ParseDuration(value->get(), &duration) ||
        duration < absl::Milliseconds(option_.least) ||
        duration > absl::Milliseconds(option_.most)) {
      return Reject(fmt::format("must be a duration such as \"500ms\" or \"1h30m\" from {}",
                                option_.allowed));
    }
    config_.*target = duration;
    return absl::OkStatus();
  }
  absl::Status operator()(ByteCount AgentConfig::*target) {
    const auto* text = node_.as_string();
    const auto* number = node_.as_integer();
    std::optional<ByteCount> size;
    if (text != nullptr) size = ByteCount::Parse(text->get());
    if (number != nullptr && number->get() >= 0)
      size = ByteCount{static_cast<uint64_t>(number->get())};
    if (!size || size->value > static_cast<uint64_t>(INT64_MAX) ||
        !InRange(static_cast<int64_t>(size->value))) {
      return Reject(fmt::format("must be a size such as \"192MiB\" from {}", option_.allowed));
    }
    config_.*target = *size;
    return absl::OkStatus();
  }

 private:
  bool InRange(int64_t value) const { return value >= option_.least && value <= option_.most; }

  absl::Status Reject(std::string_view must) const {
    std::string given;
    if (const auto* value = node_.as_string())
      given = fmt::format(" = \"{}\"", Shown(value->get()));
    if (const auto* value = node_.as_integer()) given = fmt::format(" = {}", value->get());
    if (const auto* value = node_.as_boolean()) given = value->get() ? " = true" : " = false";
    if (HasControlCharacter(given)) given.clear();
    return reporter_.At(node_.source(), "{}.{}{}: {}. HINT: the default is {}", option_.section,
                        option_.key, given, must, option_.default_value);
  }

  const Reporter& reporter_;
  const Option& option_;
  const toml::node& node_;
  AgentConfig& config_;
};

}  // namespace

std::string Shown(std::string_view text) {
  return text.size() <= 80 ? std::string(text) : std::string(text.substr(0, 80)) + "...";
}

bool HasControlCharacter(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

absl::Status SetOption(const Reporter& reporter, const Option& option, const toml::node& node,
                       AgentConfig& config) {
  return std::visit(Setter(reporter, option, node, config), option.target);
}

absl::Status SetDefaults(AgentConfig& config) {
  const Reporter reporter("built-in defaults");
  for (const Option& option : Options()) {
    if (option.rule == TextRule::kRequiredPath && option.default_value == R"("")") continue;
    const toml::table parsed = toml::parse(fmt::format("value = {}", option.default_value));
    METAL_RETURN_IF_ERROR(SetOption(reporter, option, *parsed.get("value"), config));
  }
  return absl::OkStatus();
}

}  // namespace metal::base
