#include "agent/pg/lag.h"

#include "gmock/gmock.h"

namespace metal::pg {
namespace {

using base::Lsn;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

StandbyObservation Streaming(uint64_t replayed, uint64_t end) {
  StandbyObservation observation;
  observation.now = kNow;
  observation.receiver_streaming = true;
  observation.received = Lsn{end};
  observation.replayed = Lsn{replayed};
  observation.latest_end = Lsn{end};
  observation.last_message = kNow - absl::Seconds(1);
  observation.last_replayed_commit = kNow - absl::Seconds(3);
  return observation;
}

TEST(StandbyLagTest, IsZeroWhileThePrimaryIsIdle) {
  StandbyObservation observation = Streaming(1000, 1000);
  observation.last_replayed_commit = kNow - absl::Hours(5);
  observation.last_message = kNow - absl::Seconds(30);  // the answer to the last ping
  const StandbyLag lag = ComputeStandbyLag(observation);
  EXPECT_EQ(lag.seconds, absl::ZeroDuration());
  EXPECT_EQ(lag.bytes, 0u);
  EXPECT_EQ(lag.source, "caught_up");
}

TEST(StandbyLagTest, IsTheAgeOfTheLastReplayedCommitWhenBehind) {
  const StandbyLag lag = ComputeStandbyLag(Streaming(1000, 5000));
  EXPECT_EQ(lag.seconds, absl::Seconds(3));
  EXPECT_EQ(lag.bytes, 4000u);
  EXPECT_EQ(lag.source, "replay_timestamp");
}

TEST(StandbyLagTest, TheFirstByteAfterAnIdleHourIsNotAnHour) {
  StandbyObservation observation = Streaming(1000, 5000);
  observation.last_replayed_commit = kNow - absl::Hours(1);
  observation.last_caught_up = kNow - absl::Milliseconds(900);
  EXPECT_EQ(ComputeStandbyLag(observation).seconds, absl::Milliseconds(900));
}

TEST(StandbyLagTest, GrowsWithADeadLinkThoughAllReceivedIsReplayed) {
  StandbyObservation observation = Streaming(1000, 1000);
  for (const int silence : {41, 100, 1000}) {
    observation.last_message = kNow - absl::Seconds(silence);
    const StandbyLag lag = ComputeStandbyLag(observation);
    EXPECT_EQ(lag.seconds, absl::Seconds(silence));
    EXPECT_EQ(lag.bytes, std::nullopt);
    EXPECT_EQ(lag.source, "link_dead");
  }
}

TEST(StandbyLagTest, AReceiverThatIsGoneIsADeadLink) {
  StandbyObservation observation = Streaming(1000, 1000);
  observation.receiver_streaming = false;
  observation.last_message = kNow - absl::Seconds(7);
  EXPECT_EQ(ComputeStandbyLag(observation).seconds, absl::Seconds(7));
  observation.last_message = absl::InfinitePast();
  const StandbyLag never = ComputeStandbyLag(observation);
  EXPECT_EQ(never.seconds, std::nullopt);
  EXPECT_EQ(never.source, "link_dead");
}

TEST(StandbyLagTest, AHeartbeatGivesBytesWhileTheLinkIsDead) {
  StandbyObservation observation = Streaming(1000, 1000);
  observation.receiver_streaming = false;
  observation.primary_lsn = Lsn{9000};
  EXPECT_EQ(ComputeStandbyLag(observation).bytes, 8000u);
}

TEST(StandbyLagTest, AStreamingReceiverWithoutAPositionIsUnknownNotCaughtUp) {
  StandbyObservation observation = Streaming(1000, 0);
  const StandbyLag lag = ComputeStandbyLag(observation);
  EXPECT_EQ(lag.source, "unknown");
  EXPECT_EQ(lag.seconds, std::nullopt);
  EXPECT_EQ(lag.bytes, std::nullopt);
}

TEST(StandbyLagTest, PausedReplayIsNamed) {
  StandbyObservation observation = Streaming(1000, 5000);
  observation.replay_paused = true;
  EXPECT_EQ(ComputeStandbyLag(observation).source, "paused");
}

TEST(StandbyLagTest, APrimarysClockAheadGivesNoNegativeLag) {
  StandbyObservation observation = Streaming(1000, 5000);
  observation.last_replayed_commit = kNow + absl::Seconds(10);
  EXPECT_EQ(ComputeStandbyLag(observation).seconds, absl::ZeroDuration());
}

TEST(FollowerLagTest, IsZeroWhenCaughtUpThoughReplayLagIsNull) {
  const FollowerLag lag = ComputeFollowerLag(Lsn{500}, Lsn{500}, std::nullopt, std::nullopt);
  EXPECT_EQ(lag.bytes, 0u);
  EXPECT_EQ(lag.seconds, absl::ZeroDuration());
}

TEST(FollowerLagTest, IsReplayLagWhenBehindAndUnknownWithout) {
  EXPECT_EQ(ComputeFollowerLag(Lsn{900}, Lsn{500}, absl::Seconds(2), std::nullopt).seconds,
            absl::Seconds(2));
  EXPECT_EQ(ComputeFollowerLag(Lsn{900}, Lsn{500}, absl::Seconds(2), std::nullopt).bytes, 400u);
  EXPECT_EQ(ComputeFollowerLag(Lsn{900}, Lsn{500}, std::nullopt, std::nullopt).seconds,
            std::nullopt);
  EXPECT_EQ(ComputeFollowerLag(Lsn{0}, Lsn{0}, std::nullopt, std::nullopt).seconds, std::nullopt);
}

TEST(FollowerLagTest, SilenceCountsWhenItIsLongerThanTheLastLag) {
  EXPECT_EQ(ComputeFollowerLag(Lsn{900}, Lsn{500}, absl::Seconds(2), absl::Seconds(30)).seconds,
            absl::Seconds(30));
  EXPECT_EQ(ComputeFollowerLag(Lsn{900}, Lsn{500}, absl::Seconds(40), absl::Seconds(30)).seconds,
            absl::Seconds(40));
  EXPECT_EQ(ComputeFollowerLag(Lsn{500}, Lsn{500}, std::nullopt, absl::Seconds(30)).seconds,
            absl::ZeroDuration());
}

TEST(StandbyLagTest, WhatWasReceivedBeforeTheLinkDiedIsOlderThanTheSilence) {
  StandbyObservation observation = Streaming(1000, 5000);
  observation.receiver_streaming = false;
  const StandbyLag lag = ComputeStandbyLag(observation);
  EXPECT_EQ(lag.source, "link_dead");
  EXPECT_EQ(lag.seconds, absl::Seconds(3));
}

TEST(StandbyLagTest, AHeartbeatNeverMakesACaughtUpStandbyLookBehind) {
  StandbyObservation observation = Streaming(1000, 1000);
  observation.heartbeat = kNow - absl::Hours(1);  // the primary's clock is an hour behind
  EXPECT_EQ(ComputeStandbyLag(observation).seconds, absl::ZeroDuration());
  EXPECT_EQ(ComputeStandbyLag(observation).source, "caught_up");
}

TEST(StandbyLagTest, AHeartbeatTellsTheAgeWhereNoCommitDoes) {
  StandbyObservation observation = Streaming(1000, 5000);
  observation.last_replayed_commit = absl::InfinitePast();
  EXPECT_EQ(ComputeStandbyLag(observation).source, "unknown");
  observation.heartbeat = kNow - absl::Seconds(9);
  EXPECT_EQ(ComputeStandbyLag(observation).seconds, absl::Seconds(9));
  EXPECT_EQ(ComputeStandbyLag(observation).source, "heartbeat");
  observation.heartbeat = kNow + absl::Seconds(9);
  EXPECT_EQ(ComputeStandbyLag(observation).seconds, absl::ZeroDuration()) << "its clock is ahead";
}

TEST(StandbyLagTest, AHeartbeatTellsTheAgeOfAStandbyThatNeverHeardOfItsPrimary) {
  StandbyObservation observation = Streaming(1000, 1000);
  observation.receiver_streaming = false;
  observation.last_message = absl::InfinitePast();
  for (const int age : {5, 50}) {
    observation.heartbeat = kNow - absl::Seconds(age);
    const StandbyLag lag = ComputeStandbyLag(observation);
    EXPECT_EQ(lag.source, "link_dead");
    EXPECT_EQ(lag.seconds, absl::Seconds(age));
  }
}

TEST(StandbyLagTest, TheLimitFollowsTheReceiversTimeout) {
  EXPECT_EQ(MessageFresh(std::nullopt), absl::Seconds(40));
  EXPECT_EQ(MessageFresh(absl::Seconds(60)), absl::Seconds(40));
  EXPECT_EQ(MessageFresh(absl::Seconds(15)), absl::Seconds(10));
  EXPECT_EQ(MessageFresh(absl::ZeroDuration()), absl::InfiniteDuration());
}

}  // namespace
}  // namespace metal::pg
