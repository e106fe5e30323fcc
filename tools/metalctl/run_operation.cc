#include "tools/metalctl/run_operation.h"

#include "fmt/format.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {

void PrintFacts(const v1::Operation& operation) {
  FactList facts;
  for (const auto& [name, value] :
       FormatFacts({operation.result().begin(), operation.result().end()})) {
    facts.Add(name, value);
  }
  fmt::print("{}", facts.ToString());
}

int FollowAndShow(const Client& client, v1::Operation* operation, const FollowOptions& follow,
                  const std::function<void(const v1::Operation&)>& show) {
  const int code = FollowOperation(client, operation, follow);
  if (client.json()) {
    Client::PrintJson(*operation);
  } else if (code == kExitOk && !follow.detach) {
    show(*operation);
  }
  return code;
}

}  // namespace metal::ctl
