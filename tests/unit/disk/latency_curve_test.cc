#include "agent/disk/slow/latency_curve.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/harness/slow_corpus.h"

namespace metal::disk {
namespace {

void Teach(LatencyCurve& curve, double load, double log_latency, double spread, int count) {
  testing::SlowRandom random(1);
  for (int i = 0; i < count; ++i) curve.Learn(load, log_latency + spread * random.Normal());
}

TEST(LatencyCurveTest, SaysNothingOfALoadAboveAllThatItKnows) {
  LatencyCurve curve;
  EXPECT_FALSE(curve.Predict(100e6));
  Teach(curve, 100e6, 11, 0.2, LatencyCurve::kKnownFrom - 1);
  EXPECT_FALSE(curve.Predict(100e6));
  Teach(curve, 100e6, 11, 0.2, 1000);
  ASSERT_TRUE(curve.Predict(100e6));
  EXPECT_NEAR(curve.Predict(100e6)->mean, 11, 0.05);
  EXPECT_FALSE(curve.Predict(130e6));
}

TEST(LatencyCurveTest, ExpectsOfLessLoadWhatItKnowsOfTheNextHigherOne) {
  LatencyCurve curve;
  Teach(curve, 100e6, 11, 0.2, 1000);
  Teach(curve, 800e6, 12, 0.2, 1000);
  EXPECT_NEAR(curve.Predict(0)->mean, 11, 0.05);
  EXPECT_NEAR(curve.Predict(5e6)->mean, 11, 0.05);
  EXPECT_NEAR(curve.Predict(300e6)->mean, 12, 0.05);
}

TEST(LatencyCurveTest, InterpolatesBetweenNeighbours) {
  LatencyCurve curve;
  const double low = 1e6 * std::exp2(5), high = low * std::exp2(1.0 / 8);
  Teach(curve, low, 11, 0.2, 2000);
  Teach(curve, high, 11.4, 0.2, 2000);
  EXPECT_NEAR(curve.Predict(low * std::exp2(1.0 / 16))->mean, 11.2, 0.03);
}

TEST(LatencyCurveTest, OutliersMoveItLittle) {
  LatencyCurve curve;
  Teach(curve, 100e6, 11, 0.2, 1000);
  const double before = curve.Predict(100e6)->mean;
  Teach(curve, 100e6, 17, 0.2, 5);
  EXPECT_NEAR(curve.Predict(100e6)->mean, before, 0.01);
}

TEST(LatencyCurveTest, AnyLoadIsTaken) {
  LatencyCurve curve;
  for (const double load : {-1.0, 0.0, 1e18, std::nan("")}) {
    curve.Learn(load, 11);
    curve.Predict(load);
  }
  Teach(curve, 1e18, 12, 0.2, 500);
  EXPECT_NEAR(curve.Predict(1e15)->mean, 12, 0.05);
}

TEST(RobustMeanTest, KeepsMeanAndSpreadOfWhatItWasTold) {
  RobustMean mean(100000);
  testing::SlowRandom random(3);
  for (int i = 0; i < 20000; ++i) mean.Learn(5 + 0.5 * random.Normal());
  EXPECT_NEAR(mean.mean(), 5, 0.02);
  EXPECT_NEAR(mean.deviation(), 0.5, 0.03);
}

TEST(RobustMeanTest, ForgetsWhatIsLongAgo) {
  RobustMean mean(1000);
  testing::SlowRandom random(3);
  for (int i = 0; i < 5000; ++i) mean.Learn(5 + 0.5 * random.Normal());
  for (int i = 0; i < 10000; ++i) mean.Learn(6 + 0.5 * random.Normal());
  EXPECT_NEAR(mean.mean(), 6, 0.1);
}

}  // namespace
}  // namespace metal::disk
