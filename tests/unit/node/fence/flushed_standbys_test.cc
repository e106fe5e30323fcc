#include "agent/node/fence/flushed_standbys.h"

#include <gtest/gtest.h>

namespace metal::node {
namespace {

observe::FollowerSection Standby(const std::string& name, const std::string& sync_state,
                                 uint64_t flushed) {
  observe::FollowerSection standby;
  standby.application_name = name;
  standby.sync_state = sync_state;
  standby.flush_lsn = base::Lsn{flushed};
  return standby;
}

TEST(FlushedStandbysTest, SynchronousOnesComeFirst) {
  observe::FollowersSection seen;
  seen.followers = {Standby("c", "async", 0x3000200), Standby("b", "quorum", 0x3000060),
                    Standby("a", "quorum", 0x3000100), Standby("pg_receivewal", "async", 0)};
  const FlushedStandbys flushed = FlushedOnStandbys(seen);
  EXPECT_EQ(flushed.lsn, base::Lsn{0x3000100});
  EXPECT_EQ(flushed.by, "a");
  EXPECT_EQ(flushed.text,
            "standbys had flushed 0/3000100 (a, quorum), 0/3000060 (b, quorum), 0/3000200 (c, "
            "async)");
}

TEST(FlushedStandbysTest, WithoutStandbysNothingIsKnown) {
  const FlushedStandbys flushed = FlushedOnStandbys({});
  EXPECT_FALSE(flushed.lsn.valid());
  EXPECT_EQ(flushed.text, "no standby was seen");
}

TEST(FollowersMemoryTest, KeepsWhatAServerThatIsGoneHad) {
  FollowersMemory memory;
  observe::NodeStatus status;
  const absl::Time then = absl::FromUnixSeconds(1000);
  status.postgres.role_observed = observe::Role::kPrimary;
  status.followers.time.captured_at = then;
  status.followers.followers = {Standby("b", "quorum", 0x3000060)};
  memory.Look(status);
  status.followers = {};
  status.postgres.role_observed = observe::Role::kUnknown;
  memory.Look(status);
  EXPECT_EQ(memory.Flushed(then + absl::Seconds(2)).text,
            "standbys had flushed 0/3000060 (b, quorum)");
  EXPECT_EQ(memory.Flushed(then + absl::Seconds(60)).text,
            "standbys had flushed 0/3000060 (b, quorum) (60 s before)");
}

TEST(FollowersMemoryTest, AStandbyForgetsTheFollowersThatItHadAsAPrimary) {
  FollowersMemory memory;
  observe::NodeStatus status;
  status.postgres.role_observed = observe::Role::kPrimary;
  status.followers.followers = {Standby("b", "quorum", 0x3000060)};
  memory.Look(status);
  status.followers = {};
  status.postgres.role_observed = observe::Role::kStandby;
  memory.Look(status);
  EXPECT_EQ(memory.Flushed(absl::Now()).text, "no standby was seen");
}

}  // namespace
}  // namespace metal::node
