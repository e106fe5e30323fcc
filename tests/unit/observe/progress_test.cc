#include "agent/observe/progress.h"

#include <gtest/gtest.h>

#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::observe {
namespace {

using ::testing::ElementsAre;
using testing::SimulatedClock;
using testing::StatusIs;

constexpr uint64_t kMega = 1'000'000;

TEST(ProgressTest, RateAndEtaFollowTheWork) {
  SimulatedClock clock;
  Progress progress(clock);
  progress.BeginPhase("copying files", 100 * kMega);
  EXPECT_EQ(progress.Snapshot().eta, absl::InfiniteDuration()) << "nothing is known yet";
  for (int i = 0; i < 10; ++i) {
    clock.Advance(absl::Seconds(1));
    progress.AddDone(2 * kMega);
    progress.Snapshot();
  }
  const ProgressSnapshot snapshot = progress.Snapshot();
  EXPECT_EQ(snapshot.phase, "copying files");
  EXPECT_EQ(snapshot.done_bytes, 20 * kMega);
  EXPECT_EQ(snapshot.total_bytes, 100 * kMega);
  EXPECT_NEAR(snapshot.bytes_per_second, 2e6, 1);
  EXPECT_NEAR(absl::ToDoubleSeconds(snapshot.eta), 40, 0.01);
  EXPECT_EQ(snapshot.phase_elapsed, absl::Seconds(10));
}

TEST(ProgressTest, RateFollowsAChangeOfSpeedWithinSeconds) {
  SimulatedClock clock;
  Progress progress(clock);
  progress.BeginPhase("copying files");
  for (int i = 0; i < 60; ++i) {
    clock.Advance(absl::Seconds(1));
    progress.AddDone(10 * kMega);
    progress.Snapshot();
  }
  for (int i = 0; i < 15; ++i) {
    clock.Advance(absl::Seconds(1));
    progress.AddDone(kMega);
    progress.Snapshot();
  }
  EXPECT_LT(progress.Snapshot().bytes_per_second, 1.5e6);
}

TEST(ProgressTest, RateFallsToNothingWhenTheWorkStands) {
  SimulatedClock clock;
  Progress progress(clock);
  progress.BeginPhase("copying files", 100 * kMega);
  clock.Advance(absl::Seconds(1));
  progress.AddDone(kMega);
  progress.Snapshot();
  clock.Advance(absl::Minutes(1));
  EXPECT_EQ(progress.Snapshot().bytes_per_second, 0);
  EXPECT_EQ(progress.Snapshot().eta, absl::InfiniteDuration());
}

TEST(ProgressTest, FrequentReadersDoNotDisturbTheRate) {
  SimulatedClock clock;
  Progress progress(clock);
  progress.BeginPhase("copying files");
  for (int i = 0; i < 1000; ++i) {
    clock.Advance(absl::Milliseconds(10));
    progress.AddDone(kMega / 100);
    progress.Snapshot();
  }
  EXPECT_NEAR(progress.Snapshot().bytes_per_second, 1e6, 1e4);
}

TEST(ProgressTest, NewPhaseStartsAtNothingAndTellsTheObserver) {
  SimulatedClock clock;
  Progress progress(clock);
  std::vector<std::string> phases;
  progress.SetPhaseObserver([&](const std::string& phase) { phases.push_back(phase); });
  progress.BeginPhase("one", 10);
  progress.SetDone(10);
  EXPECT_EQ(progress.Snapshot().eta, absl::ZeroDuration());
  clock.Advance(absl::Seconds(3));
  progress.BeginPhase("two");
  const ProgressSnapshot snapshot = progress.Snapshot();
  EXPECT_EQ(snapshot.done_bytes, 0u);
  EXPECT_EQ(snapshot.total_bytes, 0u);
  EXPECT_EQ(snapshot.phase_elapsed, absl::ZeroDuration());
  EXPECT_EQ(snapshot.eta, absl::InfiniteDuration());
  EXPECT_THAT(phases, ElementsAre("one", "two"));
}

TEST(ProgressTest, CancelIsSeenAtTheNextCheck) {
  SimulatedClock clock;
  Progress progress(clock);
  EXPECT_OK(progress.CheckCancelled());
  progress.RequestCancel();
  EXPECT_THAT(progress.CheckCancelled(), StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace metal::observe
