#include "agent/pg/start_progress.h"

#include <unistd.h>

#include "gmock/gmock.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/pg/golden_control_files.h"

namespace metal::pg {
namespace {

using ::testing::HasSubstr;

StartSample At(int seconds) {
  StartSample sample;
  sample.at = {absl::Seconds(seconds)};
  sample.redo = base::Lsn{0x1000};
  sample.control_state = "in archive recovery";
  sample.startup_pid = 7;
  return sample;
}

TEST(StartProgressTest, WithoutAnyMoveTheLimitIsReached) {
  StartProgressTracker tracker(absl::Seconds(60));
  for (int second = 0; second < 60; ++second) {
    tracker.Observe(At(second));
    EXPECT_FALSE(tracker.exhausted()) << second;
  }
  tracker.Observe(At(60));
  EXPECT_TRUE(tracker.exhausted());
  EXPECT_THAT(tracker.Describe(), HasSubstr("last progress 60 s ago"));
}

// Each kind of evidence alone keeps a start of ten hours alive.
TEST(StartProgressTest, AnyEvidenceOfWorkIsProgress) {
  const std::function<void(StartSample&, int)> moves[] = {
      [](StartSample& s, int i) { s.redo.value += static_cast<uint64_t>(i); },
      [](StartSample& s, int i) { s.min_recovery.value += static_cast<uint64_t>(i); },
      [](StartSample& s, int i) { s.timeline = static_cast<base::TimelineId>(i); },
      [](StartSample& s, int i) { s.startup_cpu = i * absl::Milliseconds(200); },
      [](StartSample& s, int i) { s.startup_io_bytes = static_cast<uint64_t>(i) << 20; },
      [](StartSample& s, int i) { s.activity = "recovering " + std::to_string(i); },
  };
  for (const auto& move : moves) {
    StartProgressTracker tracker(absl::Seconds(60));
    for (int i = 0; i < 1000; ++i) {
      StartSample sample = At(i * 36);
      move(sample, i);
      tracker.Observe(sample);
      ASSERT_FALSE(tracker.exhausted()) << i;
    }
  }
}

TEST(StartProgressTest, IdlePollingOfAStandbyWithoutASourceIsNoProgress) {
  StartProgressTracker tracker(absl::Seconds(60));
  for (int second = 0; second <= 60; second += 5) {
    StartSample sample = At(second);
    sample.startup_cpu = absl::Milliseconds(3) * (second / 5);
    sample.startup_io_bytes = static_cast<uint64_t>(second / 5) * 16384;
    tracker.Observe(sample);
  }
  EXPECT_TRUE(tracker.exhausted());
}

TEST(StartProgressTest, BeforeTheFirstSampleNothingIsExhausted) {
  EXPECT_FALSE(StartProgressTracker(absl::Seconds(1)).exhausted());
}

TEST(StartSamplerTest, ReadsTheControlFileAndTheProcess) {
  testing::TempDir dir;
  const std::vector<std::byte> bytes = golden::Bytes(golden::kControlFiles[0]);
  dir.Write("global/pg_control", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  testing::SimulatedClock clock;
  StartSampler sampler(dir.path(), clock);
  const StartSample sample = sampler.Sample(getpid());
  EXPECT_EQ(sample.redo.ToString(), "0/5000028");
  EXPECT_EQ(sample.control_state, "shut down");
  EXPECT_EQ(sample.startup_pid, 0);
  EXPECT_GT(sample.startup_io_bytes, 0u);
}

}  // namespace
}  // namespace metal::pg
