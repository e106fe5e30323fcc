// Arbitrary text as a configuration file: what is accepted is within the option table's limits;
// what is rejected says where and what to do next.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "agent/base/check.h"
#include "agent/base/config.h"
#include "agent/base/option_table.h"

namespace {

using metal::base::AgentConfig;
using metal::base::ByteCount;
using metal::base::Option;

struct CheckLimits {
  const Option& option;
  const AgentConfig& config;
  void operator()(std::string AgentConfig::*target) const {
    for (const char c : config.*target) METAL_CHECK(c != '\0' && c != '\n');
  }
  void operator()(bool AgentConfig::*) const {}
  void operator()(int AgentConfig::*target) const { Within(config.*target); }
  void operator()(absl::Duration AgentConfig::*target) const {
    Within(absl::ToInt64Milliseconds(config.*target));
  }
  void operator()(ByteCount AgentConfig::*target) const {
    Within(static_cast<int64_t>((config.*target).value));
  }
  void Within(int64_t value) const { METAL_CHECK(value >= option.least && value <= option.most); }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = metal::base::ParseConfig(text, "fuzz.toml");
  if (!config.ok()) {
    const auto message = config.status().message();
    METAL_CHECK(config.status().code() == absl::StatusCode::kInvalidArgument);
    METAL_CHECK(message.find("fuzz.toml") == 0);
    METAL_CHECK(message.find("HINT: ") != message.npos);
    METAL_CHECK(message.size() < 4096);
    return 0;
  }
  METAL_CHECK(config->pg_data_dir.front() == '/');
  for (const Option& option : metal::base::Options())
    std::visit(CheckLimits{option, *config}, option.target);
  return 0;
}
