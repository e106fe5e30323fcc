// The one table of configuration options: from it come parsing, defaults, checks and the default
// file's text. Internal to config.cc. Threading: immutable.
#pragma once

#include <span>
#include <string_view>
#include <variant>

#include "agent/base/config.h"

namespace metal::base {

// Where a value goes, which is also its type.
using OptionTarget =
    std::variant<std::string AgentConfig::*, bool AgentConfig::*, int AgentConfig::*,
                 absl::Duration AgentConfig::*, ByteCount AgentConfig::*>;

// What a string may be.
enum class TextRule {
  kAny,
  kName,           // not empty when given; letters, digits, '.', '_', '-'
  kPath,           // absolute; empty: see the option's meaning
  kRequiredPath,   // absolute, must be given
  kListenAddress,  // "host:port" or empty
  kOneOf,          // one of `allowed`
};

struct Option {
  std::string_view section, key;
  OptionTarget target;
  std::string_view default_value;  // as TOML text; an empty string is written ""
  std::string_view meaning;        // one sentence; lines are broken at '\n'
  TextRule rule = TextRule::kAny;
  std::string_view allowed =
      "";  // kOneOf: "a, b, c"; numbers, durations and sizes: "from … to …" as text
  // Limits of an int, of milliseconds of a duration, of bytes of a size.
  int64_t least = 0, most = 0;
};

std::span<const Option> Options();

}  // namespace metal::base
