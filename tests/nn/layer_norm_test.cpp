#include "nn/layer_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace strobe::nn {
namespace {

using Function = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, double);

at::Tensor plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

/// The output and the gradients of x, weight and bias.
std::vector<at::Tensor> results(Function function, at::Tensor x, at::Tensor weight, at::Tensor bias,
                                const at::Tensor& grad_out) {
  for (at::Tensor* input : {&x, &weight, &bias}) *input = input->detach().clone().set_requires_grad(true);
  const at::Tensor out = function(x, weight, bias, 1e-5);
  std::vector<at::Tensor> all = torch::autograd::grad({out}, {x, weight, bias}, {grad_out.to(out.scalar_type())});
  all.insert(all.begin(), out.detach());
  return all;
}

class LayerNormTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor x_ = (at::randn({7, 5, 48}) * 3 + 1).to(GetParam());
  at::Tensor weight_ = at::randn({48}), bias_ = at::randn({48});
  at::Tensor grad_out_ = at::randn({7, 5, 48}).to(GetParam());
};

TEST_P(LayerNormTest, RoundsOnceWhatSinglePrecisionGives) {
  const auto ours = results(layer_norm, x_, weight_, bias_, grad_out_);
  const auto single = results(plain, x_.to(at::kFloat), weight_, bias_, grad_out_.to(at::kFloat));
  const auto dtype = GetParam();
  EXPECT_TRUE(at::equal(ours[0], single[0].to(dtype)));
  EXPECT_TRUE(at::equal(ours[1], single[1].to(dtype)));
  for (const int parameter : {2, 3}) {
    EXPECT_EQ(ours[parameter].scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(ours[parameter], single[parameter]));
  }
}

TEST_P(LayerNormTest, TakesWeightsOfTheSameDtype) {
  const auto dtype = GetParam();
  const auto ours = results(layer_norm, x_, weight_.to(dtype), bias_.to(dtype), grad_out_);
  for (const at::Tensor& result : ours) EXPECT_EQ(result.scalar_type(), dtype);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, LayerNormTest, testing::Values(at::kHalf, at::kBFloat16, at::kFloat));

TEST(LayerNormModuleTest, BeginsAsTheIdentityOnNormalizedRows) {
  const at::Tensor x = at::randn({6, 32}, at::kDouble);
  LayerNorm norm(32, 1e-5);
  norm->to(at::kDouble);
  EXPECT_TRUE(at::equal(norm->forward(x), at::layer_norm(x, {32}, {}, {}, 1e-5)));
}

}  // namespace
}  // namespace strobe::nn
