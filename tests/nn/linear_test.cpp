// nn::linear against ATen's in float64. Rounding errors of a sum of n products behave as if independent (Higham & Mary
// 2019): their root mean square is at most sqrt(n) units in the last place of the result's, in any order of summation.
#include "nn/linear.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sub.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

namespace strobe::nn {
namespace {

using Product = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&);

at::Tensor ours(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return linear(x, weight, *bias);
}

/// The output and the gradients of x, weight and bias, for a gradient of the output that is not contiguous.
std::vector<at::Tensor> results(Product product, std::vector<at::Tensor> inputs, const at::Tensor& grad_out,
                                at::ScalarType dtype) {
  for (at::Tensor& input : inputs) input = input.to(dtype, false, /*copy=*/true).set_requires_grad(true);
  const at::Tensor out = product(inputs[0], inputs[1], inputs[2]);
  std::vector<at::Tensor> all = torch::autograd::grad({out}, inputs, {grad_out.to(dtype)});
  all.insert(all.begin(), out.detach());
  return all;
}

double root_mean_square(const at::Tensor& x) { return std::sqrt(x.to(at::kDouble).pow(2).mean().item().toDouble()); }

class LinearTest : public testing::TestWithParam<std::vector<int64_t>> {};

TEST_P(LinearTest, ErrsAsAnyOrderOfSummationDoes) {
  const std::vector<int64_t>& sizes = GetParam();  // of x, then out
  const int64_t in = sizes[sizes.size() - 2], out = sizes.back();
  const at::Tensor x = at::randn({sizes.data(), sizes.size() - 1});
  const std::vector<at::Tensor> inputs = {x, at::randn({out, in}), at::randn({out})};
  const Product aten = [](const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    return at::linear(x, weight, bias);
  };
  std::vector<int64_t> turned(sizes.begin(), sizes.end() - 1);
  turned.back() = out;
  std::swap(turned.front(), turned.back());
  const at::Tensor grad_out = at::randn(turned).transpose(0, -1);
  const auto exact = results(aten, inputs, grad_out, at::kDouble), found = results(ours, inputs, grad_out, at::kFloat);
  const int64_t rows = x.numel() / in;
  const int64_t summands[] = {in + 1, out, rows, rows};  // of the output and the gradients of x, weight, bias
  for (std::size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(found[i].sizes(), exact[i].sizes());
    const double unit = std::ldexp(1.0, -24);
    EXPECT_LE(root_mean_square(at::sub(found[i].to(at::kDouble), exact[i])),
              std::sqrt(static_cast<double>(summands[i])) * unit * root_mean_square(exact[i]))
        << "result " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, LinearTest,
                         testing::Values(std::vector<int64_t>{1, 8, 8},         // ATen's path
                                         std::vector<int64_t>{24, 8, 24},       // the least that takes oneDNN's
                                         std::vector<int64_t>{7, 9, 128, 384},  // more out than in
                                         std::vector<int64_t>{300, 512, 128},   // and less
                                         std::vector<int64_t>{130, 33, 601}));

TEST(Linear, NoGradientsGiveTheSameBits) {
  const at::Tensor x = at::randn({64, 32}), weight = at::randn({48, 32}), bias = at::randn({48});
  const at::Tensor with = linear(x, weight.clone().set_requires_grad(true), bias).detach();
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(with.equal(linear(x, weight, bias)));
}

TEST(Linear, NanReachesItsRowAlone) {
  const at::Tensor x = at::randn({64, 32}), weight = at::randn({48, 32}), bias = at::randn({48});
  x.select(0, 3).select(0, 5).fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor wrong = at::isnan(linear(x, weight, bias)).sum(1);
  EXPECT_EQ(wrong.sum().item().toLong(), 48);
  EXPECT_EQ(wrong.select(0, 3).item().toLong(), 48);
}

TEST(Linear, AutocastDecidesTheDtype) {
  const at::Tensor x = at::randn({64, 32}), weight = at::randn({48, 32}), bias = at::randn({48});
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const at::ScalarType found = linear(x, weight, bias).scalar_type();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
  EXPECT_EQ(found, at::kBFloat16);
}

TEST(JointLinearTest, IsEachLayerSideBySide) {
  Linear first(24, 8), second(24, 16);
  const at::Tensor x = at::randn({5, 7, 24});
  const std::vector<at::Tensor> parts = joint_linear(x, {first, second}).split_with_sizes({8, 16}, -1);
  EXPECT_LE(at::sub(parts[0], first->forward(x)).abs().max().item().toDouble(), 1e-6);
  EXPECT_LE(at::sub(parts[1], second->forward(x)).abs().max().item().toDouble(), 1e-6);
}

TEST(JointLinearTest, TakesTheDtypeOfTheAutocastRegion) {
  Linear first(24, 8), second(24, 8);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const at::Tensor out = joint_linear(at::randn({5, 24}), {first, second});
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  out.sum().backward();
  EXPECT_EQ(second->weight.grad().scalar_type(), at::kFloat);
}

}  // namespace
}  // namespace strobe::nn
