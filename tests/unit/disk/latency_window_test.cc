#include "agent/disk/latency_window.h"

#include "gtest/gtest.h"

namespace metal::disk {
namespace {

constexpr base::MonotonicTime At(absl::Duration since) { return {since}; }

TEST(LatencyWindowTest, KeepsOneToTwoWindows) {
  LatencyWindow window(absl::Minutes(5));
  window.Record(absl::Milliseconds(1), At(absl::Minutes(0)));
  window.Record(absl::Milliseconds(2), At(absl::Minutes(4)));
  EXPECT_EQ(window.Summary(At(absl::Minutes(4))).count, 2u);
  window.Record(absl::Milliseconds(3), At(absl::Minutes(6)));
  EXPECT_EQ(window.Summary(At(absl::Minutes(6))).count, 3u);
  window.Record(absl::Milliseconds(4), At(absl::Minutes(12)));
  EXPECT_EQ(window.Summary(At(absl::Minutes(12))).count, 2u);
  EXPECT_GE(window.Summary(At(absl::Minutes(12))).min, absl::Milliseconds(2.9));
}

TEST(LatencyWindowTest, AfterALongGapNothingIsRecent) {
  LatencyWindow window(absl::Minutes(5));
  window.Record(absl::Milliseconds(1), At(absl::Minutes(0)));
  EXPECT_EQ(window.Summary(At(absl::Minutes(11))).count, 0u);
}

}  // namespace
}  // namespace metal::disk
