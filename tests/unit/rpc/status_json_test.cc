#include "agent/rpc/status_json.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::rpc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(StatusJsonTest, EachTextIsCleanedWhereverItStands) {
  observe::NodeStatus status;
  status.node.node_id = "db-1";
  status.postgres.state_reason = "bad";
  observe::DiskSection disk;
  disk.roles = {"data", "bad"};
  observe::ProbeSection probe;
  probe.last_error = "bad";
  disk.probes.push_back(probe);
  status.disks.push_back(disk);
  status.faults["x/y"] = {.fault_class = "stalled",
                          .subject = "bad",
                          .severity = observe::Severity::kError,
                          .message = "bad",
                          .since = absl::UnixEpoch()};
  const std::string json =
      StatusJson(status, [](std::string_view, std::string_view text) -> std::string {
        return text == "bad" ? "<removed>" : std::string(text);
      });
  EXPECT_THAT(json, HasSubstr("\"node_id\": \"db-1\""));
  EXPECT_THAT(json, HasSubstr("\"state_reason\": \"\\u003cremoved\\u003e\""));
  EXPECT_THAT(json, HasSubstr("stalled"));
  EXPECT_THAT(json, Not(HasSubstr("\"bad\"")));
}

}  // namespace
}  // namespace metal::rpc
