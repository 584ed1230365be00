// residual_norm and gelu_linear: on the CPU the composition of their parts, under autocast on a GPU the same within the
// rounding of 16 bits, parameters' gradients in fp32.
#include "nn/residual_norm.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <vector>

#include "nn/activation.h"
#include "nn/quick_gelu.h"

namespace strobe::nn {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr int64_t kIn = 64, kHidden = 96;

/// A feed-forward sublayer and the norm behind it.
struct Sublayer {
  Linear first{kIn, kHidden}, second{kHidden, kIn};
  LayerNorm norm{kIn, 1e-5};

  void to(at::Device device, at::ScalarType dtype) {
    first->to(device, dtype);
    second->to(device, dtype);
    norm->to(device, dtype);
  }
  Tensors parameters() const {
    return {first->weight, first->bias, second->weight, second->bias, norm->weight(), norm->bias()};
  }
  NormedSum operator()(const at::Tensor& x, Gelu gelu) const {
    return residual_norm(x, gelu_linear(x, first, gelu), second, norm);
  }
};

Tensors results(const Sublayer& layer, const at::Tensor& x, Gelu gelu, const at::Tensor& grad_sum,
                const at::Tensor& grad_normed) {
  Tensors sources = layer.parameters();
  sources.push_back(x);
  const NormedSum out = layer(x, gelu);
  Tensors all = torch::autograd::grad(
      {out.sum, out.normed}, sources,
      {grad_sum.to(out.sum.device(), out.sum.scalar_type()), grad_normed.to(out.sum.device(), out.sum.scalar_type())});
  all.insert(all.end(), {out.sum.detach(), out.normed.detach()});
  return all;
}

class ResidualNormTest : public testing::TestWithParam<Gelu> {
 protected:
  void SetUp() override { torch::manual_seed(4); }
};

TEST_P(ResidualNormTest, OnTheCpuIsTheCompositionOfItsParts) {
  Sublayer layer;
  const at::Tensor x = at::randn({5, kIn});
  const NormedSum found = layer(x, GetParam());
  const at::Tensor hidden = layer.first->forward(x);
  const at::Tensor activated = GetParam() == Gelu::kQuick ? quick_gelu(hidden) : at::gelu(hidden);
  const at::Tensor sum = x + layer.second->forward(activated);
  EXPECT_TRUE(at::equal(found.sum, sum));
  EXPECT_TRUE(at::equal(found.normed, layer.norm->forward(sum)));
}

TEST_P(ResidualNormTest, WithoutANormGivesTheSumAlone) {
  Sublayer layer;
  layer.norm = LayerNorm(nullptr);
  const at::Tensor x = at::randn({5, kHidden}), residual = at::randn({5, kIn});
  const NormedSum found = residual_norm(residual, x, layer.second, layer.norm);
  EXPECT_TRUE(at::equal(found.sum, residual + layer.second->forward(x)));
  EXPECT_FALSE(found.normed.defined());
}

TEST_P(ResidualNormTest, UnderAutocastOnAGpuRoundsTo16Bits) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  Sublayer layer;
  const at::Tensor x = at::randn({7, 11, kIn}).to(at::kHalf).to(at::kFloat);
  const at::Tensor grad_sum = at::randn(x.sizes()), grad_normed = at::randn(x.sizes());
  layer.to(at::kCUDA, at::kFloat);
  at::autocast::set_autocast_enabled(at::kCUDA, true);
  at::autocast::set_autocast_dtype(at::kCUDA, at::kHalf);
  const Tensors found =
      results(layer, x.to(at::kCUDA, at::kHalf).set_requires_grad(true), GetParam(), grad_sum, grad_normed);
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCUDA, false);
  layer.to(at::kCPU, at::kDouble);
  const Tensors exact = results(layer, x.to(at::kDouble).set_requires_grad(true), GetParam(), grad_sum, grad_normed);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const bool is_parameter = i < layer.parameters().size();
    EXPECT_EQ(found[i].scalar_type(), is_parameter ? at::kFloat : at::kHalf) << i;
    // A handful of roundings of 2^-11 stand between inputs and results, whose errors add up like noise.
    const at::Tensor error = found[i].cpu().to(at::kDouble) - exact[i];
    EXPECT_LE(error.norm().item<double>(), 4e-3 * exact[i].norm().item<double>()) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Gelus, ResidualNormTest, testing::Values(Gelu::kExact, Gelu::kQuick));

}  // namespace
}  // namespace strobe::nn
