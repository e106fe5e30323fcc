#include "agent/disk/slow/slow_watch.h"

#include "gmock/gmock.h"

namespace metal::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;

class SlowWatchTest : public ::testing::Test {
 protected:
  void Pass(int seconds, absl::Duration latency, const std::string& serial = "S1") {
    for (int i = 0; i < seconds; ++i) {
      now_ = now_ + absl::Seconds(1);
      if (peers_) watch_.SetPeers({{"b", "data", *peers_}, {"c", "data", *peers_}}, now_);
      // Three probes, of which the median is the middle one; some scatter, as drives have.
      const absl::Duration each = latency * (1 + 0.02 * (i % 5));
      watch_.Observe({.disk = "nvme0n1",
                      .serial = serial,
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

}  // namespace
}  // namespace metal::disk
