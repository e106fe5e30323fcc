#include "agent/observe/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "agent/base/thread.h"

namespace metal::observe {
namespace {

absl::Duration Ns(int64_t value) { return absl::Nanoseconds(value); }

TEST(HistogramTest, EmptyOneIsAllZero) {
  const Histogram histogram;
  const LatencySummary summary = histogram.Summary();
  EXPECT_EQ(summary.count, 0u);
  EXPECT_EQ(summary.min, absl::ZeroDuration());
  EXPECT_EQ(summary.max, absl::ZeroDuration());
  EXPECT_EQ(summary.p999, absl::ZeroDuration());
  EXPECT_TRUE(histogram.Buckets().empty());
}

TEST(HistogramTest, OneValueIsEveryQuantile) {
  Histogram histogram;
  histogram.Record(absl::Microseconds(123));
  const LatencySummary summary = histogram.Summary();
  for (const absl::Duration value : {summary.min, summary.mean, summary.p50, summary.p90,
                                     summary.p99, summary.p999, summary.p9999, summary.max}) {
    EXPECT_EQ(value, absl::Microseconds(123));
  }
}

TEST(HistogramTest, SmallValuesAreExact) {
  for (int64_t value = 0; value < 128; ++value) {
    Histogram histogram;
    histogram.Record(Ns(value));
    histogram.Record(absl::Seconds(1));
    EXPECT_EQ(histogram.Quantile(0.5), Ns(value));
  }
}

TEST(HistogramTest, QuantilesAreWithinTheBucketWidthOfTheTruth) {
  constexpr uint64_t kSeed = 11;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  std::lognormal_distribution<double> latencies(11, 2);  // around 60 µs with a long tail
  Histogram histogram;
  std::vector<int64_t> values;
  for (int i = 0; i < 50'000; ++i) {
    values.push_back(static_cast<int64_t>(latencies(random)));
    histogram.Record(Ns(values.back()));
  }
  std::sort(values.begin(), values.end());
  for (const double q : {0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0}) {
    const auto rank =
        static_cast<size_t>(std::max(1.0, std::ceil(q * static_cast<double>(values.size()))));
    const auto truth = static_cast<double>(values[rank - 1]);
    const auto answer = static_cast<double>(absl::ToInt64Nanoseconds(histogram.Quantile(q)));
    EXPECT_GE(answer, truth) << q;
    EXPECT_LE(answer, truth * (1 + 1.0 / 64) + 1) << q;
  }
}

TEST(HistogramTest, ExtremesStayExact) {
  Histogram histogram;
  histogram.Record(absl::Hours(5));  // beyond the range
  histogram.Record(Ns(1000));
  histogram.Record(absl::Seconds(-1));  // a clock that went back counts as nothing
  EXPECT_EQ(histogram.Summary().max, absl::Hours(5));
  EXPECT_EQ(histogram.Quantile(1), absl::Hours(5));
  EXPECT_EQ(histogram.Summary().min, absl::ZeroDuration());
  EXPECT_EQ(histogram.Buckets().back().first, absl::Hours(5));
}

TEST(HistogramTest, BucketsAscendAndCoverTheValues) {
  Histogram histogram;
  for (int power = 0; power < 40; ++power) {
    histogram.Record(Ns((int64_t{1} << power) - 1));
    histogram.Record(Ns(int64_t{1} << power));
  }
  uint64_t total = 0;
  absl::Duration previous = Ns(-1);
  for (const auto& [edge, count] : histogram.Buckets()) {
    EXPECT_GT(edge, previous);
    previous = edge;
    total += count;
  }
  EXPECT_EQ(total, 80u);
}

TEST(HistogramTest, MergeEqualsRecordingAll) {
  Histogram odd, even, all;
  for (int64_t i = 1; i <= 10'000; ++i) {
    (i % 2 == 0 ? even : odd).Record(Ns(i * 997));
    all.Record(Ns(i * 997));
  }
  odd.Merge(even);
  EXPECT_EQ(odd.Buckets(), all.Buckets());
  EXPECT_EQ(odd.Summary().mean, all.Summary().mean);
  EXPECT_EQ(odd.Summary().min, all.Summary().min);
  EXPECT_EQ(odd.Summary().max, all.Summary().max);
  odd.Merge(Histogram());
  EXPECT_EQ(odd.Summary().min, all.Summary().min) << "an empty histogram has no minimum to give";
}

TEST(HistogramTest, ResetForgetsAll) {
  Histogram histogram;
  histogram.Record(absl::Seconds(1));
  histogram.Reset();
  histogram.Record(Ns(5));
  EXPECT_EQ(histogram.Summary().max, Ns(5));
  EXPECT_EQ(histogram.count(), 1u);
}

TEST(HistogramTest, ReaderBesideTheWriterSeesValuesThatWereRecorded) {
  Histogram histogram;
  std::atomic<bool> done{false};
  base::Thread writer("writer", [&] {
    for (int i = 0; i < 200'000; ++i) histogram.Record(Ns(100 + i % 100));
    done = true;
  });
  while (!done) {
    const LatencySummary summary = histogram.Summary();
    if (summary.count == 0) continue;
    EXPECT_GE(summary.p50, Ns(100));
    EXPECT_LE(summary.max, Ns(199));
  }
  writer.Join();
  EXPECT_EQ(histogram.count(), 200'000u);
}

}  // namespace
}  // namespace metal::observe
