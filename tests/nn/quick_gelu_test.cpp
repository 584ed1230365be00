#include "nn/quick_gelu.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/randn_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace strobe::nn {
namespace {

TEST(QuickGeluTest, IsXTimesTheSigmoidOf1702XWithItsDerivative) {
  const at::Tensor x = at::linspace(-8, 8, 1001, at::kDouble).set_requires_grad(true);
  const at::Tensor grad_out = at::randn_like(x);
  const at::Tensor expected = x * (1.702 * x).sigmoid();
  const at::Tensor found = quick_gelu(x);
  EXPECT_LE((found - expected).abs().max().item<double>(), 1e-14);
  const at::Tensor slope = torch::autograd::grad({expected}, {x}, {grad_out})[0];
  EXPECT_LE((torch::autograd::grad({found}, {x}, {grad_out})[0] - slope).abs().max().item<double>(), 1e-14);
}

TEST(QuickGeluTest, KeepsTheDtype) {
  const at::Tensor x = at::linspace(-8, 8, 101).to(at::kBFloat16).set_requires_grad(true);
  const at::Tensor out = quick_gelu(x);
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_EQ(torch::autograd::grad({out.sum()}, {x})[0].scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace strobe::nn
