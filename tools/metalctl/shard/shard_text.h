// The state of a shard for people and for programs. Threading: pure functions.
#pragma once

#include <string>
#include <vector>

#include "tools/metalctl/shard/findings.h"
#include "tools/metalctl/terminal.h"

namespace metal::shard {

// One table with a row for each node, below it the findings, each with its name and the next step.
std::string StatusText(const ShardConfig& config, const std::vector<NodeView>& views,
                       const std::vector<Finding>& findings, const ctl::TextOptions& options);
// The findings alone; "no inconsistencies" when there are none.
std::string FindingsText(const std::vector<Finding>& findings, const ctl::TextOptions& options);

// {"shard","term","primary","policy","nodes":[{…}],"findings":[{"name","weight","node","message",
// "hint"}]}; README.md beside metalctl lists the fields. 64-bit numbers are strings, as in the API.
std::string StatusJson(const ShardConfig& config, const std::vector<NodeView>& views,
                       const std::vector<Finding>& findings, bool pretty);

}  // namespace metal::shard
