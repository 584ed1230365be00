#include "train/precision.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

namespace strobe::train {
namespace {

TEST(Precision, Names) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kFp16}) {
    EXPECT_EQ(parse_precision(precision_name(precision)), precision);
  }
  EXPECT_THROW(parse_precision("fp8"), Error);
}

TEST(Precision, GuardCastsMatrixProductsAndRestoresEverything) {
  const at::Tensor x = at::ones({2, 2});
  const at::ScalarType dtype_before = at::autocast::get_autocast_dtype(at::kCPU);
  {
    const AutocastGuard outer(at::kCPU, Precision::kFp16);
    EXPECT_EQ(at::linear(x, x).scalar_type(), at::kHalf);
    {
      const AutocastGuard inner(at::kCPU, Precision::kFp32);
      EXPECT_EQ(at::linear(x, x).scalar_type(), at::kFloat);
    }
    {
      const AutocastGuard inner(at::kCPU, Precision::kBf16);
      EXPECT_EQ(at::linear(x, x).scalar_type(), at::kBFloat16);
    }
    EXPECT_EQ(at::linear(x, x).scalar_type(), at::kHalf);
  }
  EXPECT_EQ(at::linear(x, x).scalar_type(), at::kFloat);
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  EXPECT_EQ(at::autocast::get_autocast_dtype(at::kCPU), dtype_before);
}

TEST(Precision, CachedCastsDoNotOutliveTheGuard) {
  at::Tensor weight = at::ones({2, 2}).requires_grad_();
  const at::Tensor x = at::ones({1, 2});
  const auto first = [&] {
    const AutocastGuard guard(at::kCPU, Precision::kBf16);
    return at::linear(x, weight)[0][0].item<double>();
  };
  EXPECT_EQ(first(), 2.0);
  weight.detach().fill_(3.0);
  EXPECT_EQ(first(), 6.0);
}

TEST(LossScaler, HalvesOnOverflowAndDoublesAfterTwoThousand) {
  LossScaler scaler(at::kCPU, 1024.0);
  const at::Tensor fine = at::ones({}).zero_(), overflow = at::ones({});
  scaler.update(overflow);
  EXPECT_EQ(scaler.scale().item<double>(), 512.0);
  for (int i = 0; i < 1999; ++i) scaler.update(fine);
  EXPECT_EQ(scaler.scale().item<double>(), 512.0);
  const Dict saved = scaler.state_dict();
  scaler.update(fine);
  EXPECT_EQ(scaler.scale().item<double>(), 1024.0);
  LossScaler restored(at::kCPU, 1.0);
  restored.load_state_dict(saved);
  restored.update(fine);
  EXPECT_EQ(restored.scale().item<double>(), 1024.0);
}

}  // namespace
}  // namespace strobe::train
