// The summed cross entropy against ATen's in fp64, values and gradients.
#include "ops/cross_entropy.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

namespace strobe::ops {
namespace {

constexpr int64_t kIgnored = 0;

struct Result {
  at::Tensor loss, gradient;  // fp64 on the CPU
};

template <class Loss>
Result differentiated(const at::Tensor& logits, const Loss& loss_of) {
  const at::Tensor x = logits.detach().clone().requires_grad_();
  const at::Tensor loss = loss_of(x);
  const at::Tensor gradient = torch::autograd::grad({loss * 3}, {x})[0];
  return {loss.detach().cpu().to(at::kDouble), gradient.cpu().to(at::kDouble)};
}

Result expected(const at::Tensor& logits, const at::Tensor& targets, double smoothing) {
  return differentiated(logits.cpu().to(at::kDouble), [&](const at::Tensor& x) {
    return at::cross_entropy_loss(x, targets.cpu(), {}, at::Reduction::Sum, kIgnored, smoothing);
  });
}

Result found(const at::Tensor& logits, const at::Tensor& targets, double smoothing) {
  return differentiated(logits, [&](const at::Tensor& x) { return cross_entropy(x, targets, kIgnored, smoothing); });
}

/// The gradient is rounded to the logits' dtype, whose epsilon is given; exponentials and sums are fp32.
void expect_near(const Result& result, const Result& oracle, double epsilon) {
  constexpr double kFp32 = 1e-5;
  EXPECT_NEAR(result.loss.item<double>(), oracle.loss.item<double>(), kFp32 * std::abs(oracle.loss.item<double>()));
  const at::Tensor bound = oracle.gradient.abs() * (epsilon / 2 + kFp32) + 3e-7;
  EXPECT_TRUE(((result.gradient - oracle.gradient).abs() <= bound).all().item<bool>());
}

double epsilon_of(at::ScalarType dtype) { return dtype == at::kFloat ? 1.2e-7 : dtype == at::kHalf ? 0x1p-10 : 0x1p-7; }

void check(at::Device device, at::ScalarType dtype, int64_t classes) {
  const at::Tensor logits = (at::randn({7, classes}) * 4).to(device).to(dtype);
  at::Tensor targets = at::randint(1, classes, {7}, at::kLong);
  targets[2] = kIgnored;
  for (const double smoothing : {0.0, 0.1}) {
    SCOPED_TRACE(testing::Message() << dtype << " classes " << classes << " smoothing " << smoothing);
    expect_near(found(logits, targets.to(device), smoothing), expected(logits, targets, smoothing), epsilon_of(dtype));
  }
}

TEST(CrossEntropy, IsThatOfFp64) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) check(at::kCPU, dtype, 40);
}

TEST(CrossEntropy, SaysWhatIsWrong) {
  EXPECT_THROW(cross_entropy(at::randn({2, 8}), at::randint(8, {2}, at::kLong), kIgnored, 1.0), c10::Error);
}

TEST(CrossEntropyOnGpu, IsThatOfFp64) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no GPU";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t classes : {8, 40, 2048, 2056, 8000, 8001, 32000}) check({at::kCUDA, 0}, dtype, classes);
  }
}

TEST(CrossEntropyOnGpu, WhatIsNotFiniteComesThroughAndWhatIsIgnoredDoesNot) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no GPU";
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  at::Tensor logits = at::randn({4, 64}).to(at::kBFloat16);
  logits[0][5] = -kInfinity;  // no probability
  logits[1].fill_(kInfinity);
  const at::Tensor targets = at::tensor({7, 0, 9, 3}, at::kLong);
  const Result masked = found(logits.cuda(), targets.cuda(), 0.0);
  at::Tensor finite = logits.clone();
  finite[1].zero_();  // ATen's gradient of the ignored row would be NaN
  expect_near(masked, expected(finite, targets, 0.0), epsilon_of(at::kBFloat16));
  EXPECT_EQ(masked.gradient[0][5].item<double>(), 0.0);
  EXPECT_EQ(masked.gradient[1].abs().sum().item<double>(), 0.0);

  logits[2][0] = std::numeric_limits<double>::quiet_NaN();
  const Result broken = found(logits.cuda(), targets.cuda(), 0.1);
  EXPECT_TRUE(broken.loss.isnan().item<bool>());
  EXPECT_TRUE(broken.gradient[2].isnan().all().item<bool>());
  EXPECT_FALSE(broken.gradient[3].isnan().any().item<bool>());
}

}  // namespace
}  // namespace strobe::ops
