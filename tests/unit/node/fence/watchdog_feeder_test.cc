#include "agent/node/fence/watchdog_feeder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/unit/node/fake_privileges.h"

namespace metal::node {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

observe::NodeStatus WithProbes(const std::vector<std::pair<std::string, std::string>>& probes) {
  observe::NodeStatus status;
  status.disks.resize(1);
  for (const auto& [role, state] : probes) {
    observe::ProbeSection probe;
    probe.role = role;
    probe.state = state;
    status.disks[0].probes.push_back(probe);
  }
  return status;
}

TEST(WatchdogFeederTest, ProbesOfTheDatabaseComeBackOrDoNot) {
  const base::MonotonicTime now = base::MonotonicTime() + absl::Seconds(5);
  EXPECT_TRUE(ProbesComeBack(WithProbes({{"data", "healthy"}, {"wal", "slow"}}), now));
  EXPECT_TRUE(ProbesComeBack(WithProbes({{"data", "faulted"}}), now)) << "an error is an answer";
  EXPECT_TRUE(ProbesComeBack(WithProbes({{"data", "healthy"}, {"repository", "stalled"}}), now));
  EXPECT_FALSE(ProbesComeBack(WithProbes({{"data", "healthy"}, {"wal", "stalled"}}), now));
  EXPECT_FALSE(ProbesComeBack(WithProbes({{"data", "unknown"}}), now));
  EXPECT_FALSE(ProbesComeBack(WithProbes({{"data", "unsupported"}}), now)) << "nobody looks";
  EXPECT_FALSE(ProbesComeBack(WithProbes({{"data", "healthy"}}), now + absl::Seconds(60)))
      << "what looks stands still itself";
}

TEST(WatchdogFeederTest, AProbeOfAnyDiskHangs) {
  EXPECT_FALSE(ProbeHangs(WithProbes({})));
  EXPECT_FALSE(ProbeHangs(WithProbes({{"data", "faulted"}, {"wal", "slow"}})));
  EXPECT_TRUE(ProbeHangs(WithProbes({{"data", "healthy"}, {"repository", "stalled"}})));
}

class WatchdogFeederWithHelper : public ::testing::Test {
 protected:
  void Look(bool needed, bool come_back) {
    clock_.Advance(absl::Seconds(2));
    feeder_.Look(needed, come_back);
  }
  testing::SimulatedClock clock_;
  metal::testing::RecordedEvents events_;
  FakePrivileges helper_;
  WatchdogFeeder feeder_{&helper_, "/dev/watchdog0", absl::Seconds(30), events_, clock_};
};

TEST_F(WatchdogFeederWithHelper, IsNotStartedBeforeThePrimarysDisksAnswer) {
  Look(false, true);
  Look(true, false);
  EXPECT_THAT(helper_.asked, IsEmpty());
  Look(true, true);
  EXPECT_THAT(helper_.asked, ElementsAre("feed watchdog0"));
  EXPECT_EQ(events_.Count("watchdog.started"), 1u);
}

TEST_F(WatchdogFeederWithHelper, StarvesWhileTheProbesDoNotComeBack) {
  Look(true, true);
  Look(true, false);
  Look(true, false);
  EXPECT_THAT(helper_.asked, ElementsAre("feed watchdog0"));
  EXPECT_EQ(events_.Count("watchdog.starved"), 1u);
  Look(true, true);
  EXPECT_EQ(helper_.asked.size(), 2u);
}

TEST_F(WatchdogFeederWithHelper, IsToldWhenTheNodeIsNoPrimaryAnyMore) {
  Look(true, true);
  Look(false, false);
  Look(false, false);
  EXPECT_THAT(helper_.asked, ElementsAre("feed watchdog0", "stop"));
  EXPECT_EQ(events_.Count("watchdog.stopped"), 1u);
}

TEST_F(WatchdogFeederWithHelper, AFailureIsToldOnce) {
  helper_.answer = absl::UnimplementedError("unsupported: no device");
  for (int i = 0; i < 3; ++i) Look(true, true);
  EXPECT_EQ(events_.Count("watchdog.failed"), 1u);
}

TEST(WatchdogFeederEndTest, AnAgentThatEndsAsToldStopsIt) {
  testing::SimulatedClock clock;
  metal::testing::RecordedEvents events;
  FakePrivileges helper;
  {
    WatchdogFeeder feeder(&helper, "/dev/watchdog", absl::Seconds(30), events, clock);
    clock.Advance(absl::Seconds(2));
    feeder.Look(true, true);
  }
  EXPECT_THAT(helper.asked, ElementsAre("feed watchdog", "stop"));
  {
    WatchdogFeeder off(&helper, "", absl::Seconds(30), events, clock);
    off.Look(true, true);
  }
  EXPECT_EQ(helper.asked.size(), 2u);
}

}  // namespace
}  // namespace metal::node
