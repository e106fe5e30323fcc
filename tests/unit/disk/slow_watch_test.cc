#include "agent/disk/slow/slow_watch.h"

#include "gmock/gmock.h"

namespace metal::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;

const absl::Time kToday = absl::FromUnixSeconds(1800000000);

class SlowWatchTest : public ::testing::Test {
 protected:
  void Pass(int seconds, absl::Duration latency, const std::string& drive = "S1") {
    for (int i = 0; i < seconds; ++i) {
      now_ = now_ + absl::Seconds(1);
      if (peers_) watch_.SetPeers({{"b", "data", *peers_}, {"c", "data", *peers_}}, now_);
      // Three probes, of which the median is the middle one; some scatter, as drives have.
      const absl::Duration each = latency * (1 + 0.02 * (i % 5));
      watch_.Observe({.disk = "nvme0n1",
                      .drive = drive,
                      .roles = {"data"},
                      .latencies = {each, each * 0.9, each * 2},
                      .bytes_per_second = 50e6},
                     now_);
    }
  }
  std::vector<std::pair<Witness, bool>> Told() {
    std::vector<std::pair<Witness, bool>> told;
    for (const Evidence& each : evidence_) told.emplace_back(each.witness, each.clears);
    return told;
  }

  std::vector<Evidence> evidence_;
  SlowWatch watch_{[this](Evidence evidence) { evidence_.push_back(std::move(evidence)); }};
  base::MonotonicTime now_ = base::MonotonicTime() + absl::Hours(1);
  std::optional<LatencyExcess> peers_;
};

TEST_F(SlowWatchTest, PeersConfirmWhatTheDrivesOwnPastTells) {
  peers_ = LatencyExcess{0, 0};
  Pass(4000, absl::Microseconds(100));
  EXPECT_THAT(evidence_, IsEmpty());
  EXPECT_FALSE(watch_.SectionOf("nvme0n1")->learning);
  EXPECT_THAT(watch_.SectionOf("nvme0n1")->median_excess, Optional(::testing::DoubleNear(0, 0.2)));
  Pass(120, absl::Microseconds(400));
  EXPECT_THAT(Told(), ElementsAre(std::pair(Witness::kSlowDetector, false),
                                  std::pair(Witness::kPeers, false)));
  EXPECT_EQ(evidence_[0].fault_class, FaultClass::kSlow);
  EXPECT_THAT(evidence_[0].text, HasSubstr("times slower"));
  EXPECT_EQ(watch_.SectionOf("nvme0n1")->state, "slow");
  EXPECT_GT(watch_.SectionOf("nvme0n1")->factor, 2.5);
  Pass(1500, absl::Microseconds(100));
  EXPECT_THAT(
      Told(),
      ElementsAre(std::pair(Witness::kSlowDetector, false), std::pair(Witness::kPeers, false),
                  std::pair(Witness::kSlowDetector, true), std::pair(Witness::kPeers, true)));
}

TEST_F(SlowWatchTest, WhatAllMembersHaveIsNoFaultOfTheDrive) {
  peers_ = LatencyExcess{0, 0};
  Pass(4000, absl::Microseconds(100));
  peers_ = LatencyExcess{1.4, 1.4};
  Pass(300, absl::Microseconds(400));
  EXPECT_THAT(evidence_, IsEmpty());
}

TEST_F(SlowWatchTest, WithoutPeersItIsTheDetectorsWordAlone) {
  Pass(4000, absl::Microseconds(100));
  Pass(200, absl::Microseconds(400));
  EXPECT_THAT(Told(), ElementsAre(std::pair(Witness::kSlowDetector, false)));
}

TEST_F(SlowWatchTest, AnotherDriveBeginsAnew) {
  Pass(4000, absl::Microseconds(100));
  Pass(1, absl::Microseconds(100), "S2");
  EXPECT_TRUE(watch_.SectionOf("nvme0n1")->learning);
  watch_.KeepOnly({});
  EXPECT_FALSE(watch_.SectionOf("nvme0n1").has_value());
}

// An agent that begins anew knows the drive as the last one did: a drive that became slow meanwhile
// is not its own normal.
TEST_F(SlowWatchTest, WhatWasLearnedOutlivesTheAgent) {
  Pass(4000, absl::Microseconds(100));
  const std::string kept = EncodeLearned(watch_.Learned(kToday));
  std::vector<Evidence> evidence;
  SlowWatch next([&](Evidence each) { evidence.push_back(std::move(each)); });
  auto learned = DecodeLearned(kept);
  ASSERT_TRUE(learned.ok()) << learned.status();
  next.Recall(*learned);
  for (int i = 0; i < 300; ++i) {
    now_ = now_ + absl::Seconds(1);
    const absl::Duration each = absl::Microseconds(400) * (1 + 0.02 * (i % 5));
    next.Observe({.disk = "nvme1n1",  // its name may be another one now
                  .drive = "S1",
                  .roles = {"data"},
                  .latencies = {each, each * 0.9, each * 2},
                  .bytes_per_second = 50e6},
                 now_);
    if (i == 0) {
      EXPECT_FALSE(next.SectionOf("nvme1n1")->learning);
    }
  }
  EXPECT_EQ(next.SectionOf("nvme1n1")->state, "slow");
  ASSERT_EQ(evidence.size(), 1u);
  EXPECT_EQ(evidence[0].witness, Witness::kSlowDetector);
}

TEST_F(SlowWatchTest, ADriveThatComesBackIsKnownAndOneWithoutANameIsNot) {
  for (const char* drive : {"S1", ""}) {
    Pass(4000, absl::Microseconds(100), drive);
    watch_.KeepOnly({});
    Pass(1, absl::Microseconds(100), drive);
    EXPECT_EQ(watch_.SectionOf("nvme0n1")->learning, *drive == 0) << drive;
  }
}

TEST_F(SlowWatchTest, ANameThatTwoDisksHaveIsNone) {
  Pass(4000, absl::Microseconds(100));
  watch_.Observe({.disk = "nvme0n2",
                  .drive = "S1",
                  .roles = {"wal"},
                  .latencies = {absl::Milliseconds(1)},
                  .bytes_per_second = 1},
                 now_);
  EXPECT_TRUE(watch_.SectionOf("nvme0n2")->learning);
  EXPECT_THAT(watch_.Learned(kToday), IsEmpty());
}

TEST_F(SlowWatchTest, WhereMoreWasLearnedThatStays) {
  Pass(3000, absl::Microseconds(100));
  const LearnedDrives much = watch_.Learned(kToday);
  SlowWatch other([](const Evidence&) {});
  LearnedDrives little = much;
  little.at("S1").channels[0].history.count = 10;
  other.Recall(little);
  other.Recall(much);
  other.Recall(little);
  EXPECT_EQ(other.Learned(kToday), much);
  SlowDetector detector;
  detector.Recall(much.at("S1"));
  detector.Recall(little.at("S1"));
  EXPECT_EQ(detector.Learned().channels, much.at("S1").channels);
}

TEST_F(SlowWatchTest, OfADriveThatIsGoneItIsKeptForAMonth) {
  Pass(3000, absl::Microseconds(100));
  watch_.KeepOnly({});
  ASSERT_EQ(watch_.Learned(kToday).size(), 1u);
  EXPECT_EQ(watch_.Learned(kToday + absl::Hours(29 * 24)).size(), 1u);
  EXPECT_THAT(watch_.Learned(kToday + absl::Hours(31 * 24)), IsEmpty());
}

// As after an acknowledgement: it is over, and what is now is learned.
TEST_F(SlowWatchTest, WhatIsForgottenIsLearnedAnew) {
  Pass(4000, absl::Microseconds(100));
  Pass(200, absl::Microseconds(400));
  ASSERT_EQ(watch_.SectionOf("nvme0n1")->state, "slow");
  watch_.Forget("nvme0n1");
  EXPECT_THAT(Told(), ElementsAre(std::pair(Witness::kSlowDetector, false),
                                  std::pair(Witness::kSlowDetector, true)));
  EXPECT_THAT(watch_.Learned(kToday), IsEmpty());
  Pass(4000, absl::Microseconds(400));
  EXPECT_EQ(evidence_.size(), 2u);
  Pass(200, absl::Microseconds(1600));
  EXPECT_EQ(watch_.SectionOf("nvme0n1")->state, "slow") << "slower than that";
}

}  // namespace
}  // namespace metal::disk
