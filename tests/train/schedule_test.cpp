#include "train/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "strobe/types.h"

namespace strobe::train {
namespace {

using Kind = ScheduleOptions::Kind;

constexpr double kRounding = 4 * std::numeric_limits<double>::epsilon();

ScheduleOptions options(Kind kind, int64_t warmup) {
  ScheduleOptions o;
  o.kind = kind;
  o.lr = 3e-3;
  o.warmup = warmup;
  o.total_updates = 100;
  o.min_lr = 1e-5;
  return o;
}

TEST(Schedule, NoamRisesLinearlyAndFallsWithTheRoot) {
  ScheduleOptions o;  // the defaults: d_model 512, warm-up 10000
  const double peak = learning_rate(o, 10000);
  EXPECT_NEAR(peak, 1.0 / std::sqrt(512.0 * 10000.0), kRounding * peak);  // 4.419e-4
  EXPECT_NEAR(learning_rate(o, 1), peak / 10000, kRounding * peak);
  EXPECT_NEAR(learning_rate(o, 5000), peak / 2, kRounding * peak);
  EXPECT_NEAR(learning_rate(o, 40000), peak / 2, kRounding * peak);
  o.factor = 2;
  EXPECT_NEAR(learning_rate(o, 10000), 2 * peak, kRounding * peak);
}

TEST(Schedule, InverseSquareRoot) {
  const ScheduleOptions o = options(Kind::kInverseSqrt, 10);
  EXPECT_NEAR(learning_rate(o, 1), o.lr / 10, kRounding);
  EXPECT_NEAR(learning_rate(o, 10), o.lr, kRounding);
  EXPECT_NEAR(learning_rate(o, 40), o.lr / 2, kRounding);
}

TEST(Schedule, CosineEndsAtTheMinimumAndStaysThere) {
  const ScheduleOptions o = options(Kind::kCosine, 20);
  EXPECT_NEAR(learning_rate(o, 5), o.lr / 4, kRounding);
  EXPECT_NEAR(learning_rate(o, 20), o.lr, kRounding);
  EXPECT_NEAR(learning_rate(o, 60), (o.lr + o.min_lr) / 2, kRounding);
  EXPECT_NEAR(learning_rate(o, 100), o.min_lr, kRounding);
  EXPECT_NEAR(learning_rate(o, 1000), o.min_lr, kRounding);
  for (int64_t step = 20; step < 100; ++step) EXPECT_GT(learning_rate(o, step), learning_rate(o, step + 1));
}

TEST(Schedule, ClipsCosineKeepsThePeakOneUpdateLonger) {
  const ScheduleOptions o = options(Kind::kClipCosine, 20), other = options(Kind::kCosine, 20);
  for (int64_t step = 1; step <= 20; ++step)
    EXPECT_NEAR(learning_rate(o, step), o.lr * static_cast<double>(step) / 20, kRounding);
  EXPECT_EQ(learning_rate(o, 21), o.lr);
  for (int64_t step = 21; step <= 100; ++step) EXPECT_EQ(learning_rate(o, step), learning_rate(other, step - 1));
}

TEST(Schedule, ClipsCosineMayEndWithinItsWarmup) {
  ScheduleOptions o = options(Kind::kClipCosine, 500);
  for (const int64_t total : {3, 500}) {
    o.total_updates = total;
    validate(o);
    EXPECT_NEAR(learning_rate(o, 3), o.lr * 3 / 500, kRounding);
  }
}

TEST(Schedule, Constant) {
  EXPECT_EQ(learning_rate(options(Kind::kConstant, 0), 1), 3e-3);
  EXPECT_NEAR(learning_rate(options(Kind::kConstant, 4), 1), 3e-3 / 4, kRounding);
  EXPECT_EQ(learning_rate(options(Kind::kConstant, 4), 99), 3e-3);
}

TEST(Schedule, RefusesWhatCannotBe) {
  const auto refuses = [](ScheduleOptions o, const char* text) {
    try {
      validate(o);
      return false;
    } catch (const Error& error) {
      return std::string(error.what()).find(text) != std::string::npos;
    }
  };
  EXPECT_TRUE(refuses(options(Kind::kNoam, 0), "warmup >= 1"));
  EXPECT_TRUE(refuses(options(Kind::kInverseSqrt, 0), "warmup >= 1"));
  EXPECT_TRUE(refuses(options(Kind::kCosine, 100), "total_updates > warmup"));
  ScheduleOptions negative = options(Kind::kConstant, 0);
  negative.lr = -1;
  EXPECT_TRUE(refuses(negative, "lr > 0"));
  ScheduleOptions high_minimum = options(Kind::kCosine, 0);
  high_minimum.min_lr = 1;
  EXPECT_TRUE(refuses(high_minimum, "min_lr <= lr"));
}

}  // namespace
}  // namespace strobe::train
