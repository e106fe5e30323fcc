#include "agent/node/fence/fenced_peers.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::node {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(FencedPeersTest, APeerIsVisibleForTenSecondsAfterItWasToldOf) {
  const base::MonotonicTime begin = base::MonotonicTime() + absl::Hours(1);
  FencedPeers peers;
  EXPECT_THAT(peers.Visible(begin), IsEmpty());
  peers.Told({"c", "b"}, begin);
  peers.Told({"c"}, begin + absl::Seconds(5));
  EXPECT_THAT(peers.Visible(begin + absl::Seconds(10)), ElementsAre("b", "c"));
  EXPECT_THAT(peers.Visible(begin + absl::Seconds(11)), ElementsAre("c"));
  EXPECT_THAT(peers.Visible(begin + absl::Seconds(16)), IsEmpty());
}

}  // namespace
}  // namespace metal::node
