// Reads one option's value from its TOML node, with errors that name the place. Internal to
// config.cc. Threading: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "agent/base/option_table.h"
#include "agent/base/status.h"
#define TOML_EXCEPTIONS 1
#include "toml++/toml.h"

namespace metal::base {

// Names the place of every error in one file.
class Reporter {
 public:
  explicit Reporter(std::string_view file) : file_(file) {}
  template <typename... Args>
  absl::Status At(const toml::source_region& source, fmt::format_string<Args...> format,
                  Args&&... args) const {
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    if (source.begin.line == 0)
      return Error(absl::StatusCode::kInvalidArgument, "{}: {}", file_, text);
    return Error(absl::StatusCode::kInvalidArgument, "{}:{}: {}", file_, source.begin.line, text);
  }

 private:
  std::string_view file_;
};

// `text` cut to what fits a message.
std::string Shown(std::string_view text);

bool HasControlCharacter(std::string_view text);

// Stores the node's value. INVALID_ARGUMENT names the option, the value, what is allowed and the
// default.
absl::Status SetOption(const Reporter& reporter, const Option& option, const toml::node& node,
                       AgentConfig& config);

// Stores every option's default; what must be given stays empty.
absl::Status SetDefaults(AgentConfig& config);

}  // namespace metal::base
