// strobe::layer_norm and strobe::bias_activation: on the CPU against autograd through ATen's operators, on a GPU
// against the CPU.
#include "ops/pointwise.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "strobe/dropout.h"

namespace strobe::ops {
namespace {

using Tensors = std::vector<at::Tensor>;
using Tensor5 = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

constexpr double kEps = 1e-5;

/// A dtype's distance from 1 to the next number: the most by which two roundings of nearly the same value differ,
/// relatively.
double unit(at::ScalarType dtype) {
  return dtype == at::kHalf ? 0x1p-10 : dtype == at::kBFloat16 ? 0x1p-7 : dtype == at::kFloat ? 0x1p-20 : 0x1p-44;
}

double excess(const at::Tensor& found, const at::Tensor& expected, double relative, double absolute) {
  const at::Tensor a = found.cpu().to(at::kDouble), b = expected.cpu().to(at::kDouble);
  return ((a - b).abs() - b.abs() * relative - absolute).max().item<double>();
}

/// [rows, width] activations and parameters.
struct Inputs {
  at::Tensor input, weight, bias, input_bias, residual, grad_sum, grad_out;

  static Inputs draw(at::IntArrayRef shape, at::ScalarType activations, at::ScalarType parameters) {
    const int64_t width = shape.back();
    const auto some = [&] { return at::randn(shape, at::kDouble).to(activations); };
    const auto parameter = [&] { return at::randn({width}, at::kDouble).to(parameters); };
    return {some(), parameter(), parameter(), parameter(), some() * 2, some(), some()};
  }

  Inputs on(at::Device device) const {
    return {input.to(device),    weight.to(device),   bias.to(device),    input_bias.to(device),
            residual.to(device), grad_sum.to(device), grad_out.to(device)};
  }
};

Tensors leaves(const Inputs& in) {
  Tensors all;
  for (const at::Tensor& t : {in.input, in.weight, in.bias, in.input_bias, in.residual}) {
    all.push_back(t.detach().clone().set_requires_grad(true));
  }
  return all;
}

/// sum, out, then the gradients of input, weight, bias, input_bias and residual.
template <class Norm>
Tensors with_gradients(const Inputs& in, const Norm& norm) {
  const Tensors x = leaves(in);
  const auto [sum, out] = norm(x[0], x[1], x[2], x[3], x[4]);
  Tensors all = torch::autograd::grad({sum, out}, x, {in.grad_sum, in.grad_out});
  all.insert(all.begin(), {sum.detach(), out.detach()});
  return all;
}

Tensors ours(const Inputs& in) {
  return with_gradients(in, [](const auto& x, const auto& w, const auto& b, const auto& xb, const auto& r) {
    return layer_norm(x, w, b, kEps, xb, r);
  });
}

using Dtypes = std::pair<at::ScalarType, at::ScalarType>;  // of activations and of parameters

class PointwiseTest : public testing::TestWithParam<Dtypes> {
 protected:
  void SetUp() override { torch::manual_seed(5); }
};

TEST_P(PointwiseTest, LayerNormIsThatOfTheResidualSumWithItsGradients) {
  const auto [dtype, parameters] = GetParam();
  const Inputs in = Inputs::draw({3, 5, 24}, dtype, parameters);
  const Tensors found = ours(in);
  const auto plain = [dtype = dtype](const auto& x, const auto& w, const auto& b, const auto& xb, const auto& r) {
    const at::Tensor exact = r + x + xb;  // rounded where the operator rounds, its gradient not
    const at::Tensor sum = exact + (exact.detach().to(dtype).to(at::kDouble) - exact.detach());
    return std::pair(sum, at::layer_norm(sum, {24}, w, b, kEps));
  };
  Inputs exact = in;
  for (at::Tensor* t : {&exact.input, &exact.weight, &exact.bias, &exact.input_bias, &exact.residual, &exact.grad_sum,
                        &exact.grad_out}) {
    *t = t->to(at::kDouble);
  }
  const Tensors expected = with_gradients(exact, plain);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const bool is_parameter = i >= 3 && i <= 5;
    EXPECT_EQ(found[i].scalar_type(), is_parameter ? parameters : dtype);
    const double rounding = unit(found[i].scalar_type());
    EXPECT_LE(excess(found[i], expected[i], rounding, 8 * rounding), 0) << i;
  }
}

TEST_P(PointwiseTest, WithoutResidualThereIsNoSum) {
  const auto [dtype, parameters] = GetParam();
  const Inputs in = Inputs::draw({4, 16}, dtype, parameters);
  const auto [sum, out] = layer_norm(in.input, in.weight, in.bias, kEps);
  EXPECT_EQ(sum.numel(), 0);
  const at::Tensor expected =
      at::layer_norm(in.input.to(at::kDouble), {16}, in.weight.to(at::kDouble), in.bias.to(at::kDouble), kEps);
  EXPECT_LE(excess(out, expected, unit(dtype), unit(dtype)), 0);
}

TEST_P(PointwiseTest, BiasActivationsAndTheirGradients) {
  const auto [dtype, parameters] = GetParam();
  const Inputs in = Inputs::draw({3, 5, 24}, dtype, parameters);
  for (const char* name : {"gelu", "quick_gelu"}) {
    const at::Tensor x = (in.input * 3).detach().set_requires_grad(true);
    const at::Tensor b = in.input_bias.clone().set_requires_grad(true);
    const at::Tensor out = bias_activation(x, b, name);
    const Tensors found = torch::autograd::grad({out}, {x, b}, {in.grad_out});
    const at::Tensor y = x.detach().to(at::kDouble).set_requires_grad(true);
    const at::Tensor c = b.detach().to(at::kDouble).set_requires_grad(true);
    const at::Tensor z = y + c;
    const at::Tensor exact = std::string(name) == "gelu" ? at::gelu(z) : z * (1.702 * z).sigmoid();
    const Tensors expected = torch::autograd::grad({exact}, {y, c}, {in.grad_out.to(at::kDouble)});
    EXPECT_LE(excess(out, exact.detach(), unit(dtype), unit(at::kFloat)), 0) << name;
    EXPECT_LE(excess(found[0], expected[0], unit(dtype), unit(at::kFloat)), 0) << name;
    EXPECT_LE(excess(found[1], expected[1], unit(parameters), 32 * unit(parameters)), 0) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, PointwiseTest,
                         testing::Values(Dtypes{at::kDouble, at::kDouble}, Dtypes{at::kFloat, at::kFloat},
                                         Dtypes{at::kHalf, at::kFloat}, Dtypes{at::kBFloat16, at::kFloat}));

c10::TypedOperatorHandle<Tensor5(const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&, double, const at::Tensor&)>
backward_operator() {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow("strobe::layer_norm_backward", "")
      .typed<Tensor5(const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                     const at::Tensor&, double, const at::Tensor&)>();
}

Tensor5 forward_operator(const Inputs& in, double dropout_p) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow("strobe::layer_norm_forward", "")
      .typed<Tensor5(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, const OptionalTensor&,
                     const OptionalTensor&, double)>()
      .call(in.input, in.weight, in.bias, kEps, in.input_bias, in.residual, dropout_p);
}

/// 0 or the scale for each element: the gradient of input where that of the sum is 1 and the norm has none.
at::Tensor dropout_factors(const at::Tensor& like, double dropout_p, const at::Tensor& rng_state) {
  const at::Tensor x = at::zeros_like(like), statistics = at::zeros_like(x.select(-1, 0)).flatten().to(at::kFloat);
  const at::Tensor weight = at::zeros_like(x.flatten(0, -2).select(0, 0)).to(at::kFloat);
  return std::get<1>(
      backward_operator().call(x, at::ones_like(x), x, statistics, statistics, weight, dropout_p, rng_state));
}

TEST(PointwiseDropoutTest, DropsTheShareAndTheSameInTheBackward) {
  torch::manual_seed(6);
  const double p = 0.25;
  const Inputs in = Inputs::draw({64, 128}, at::kFloat, at::kFloat);
  const auto [sum, out, mean, rstd, rng_state] = forward_operator(in, p);
  const at::Tensor factors = dropout_factors(in.input, p, rng_state);
  EXPECT_LE(excess(sum, in.residual + (in.input + in.input_bias) * factors, unit(at::kFloat), unit(at::kFloat)), 0);
  const double kept = factors.ne(0).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(kept, 1 - p, 5 * std::sqrt(p * (1 - p) / 8192));  // five standard deviations
  EXPECT_NEAR(factors.max().item<double>(), 1 / (1 - p), 1e-4);
  EXPECT_FALSE(at::equal(factors, dropout_factors(in.input, p, std::get<4>(forward_operator(in, p)))));
}

TEST(PointwiseMetaTest, TellsTheShapes) {
  const Inputs in = Inputs::draw({2, 3, 16}, at::kHalf, at::kFloat).on(at::kMeta);
  const auto [sum, out, mean, rstd, rng_state] = forward_operator(in, 0.1);
  EXPECT_EQ(sum.sizes(), in.input.sizes());
  EXPECT_EQ(out.scalar_type(), at::kHalf);
  EXPECT_THAT(mean.sizes(), testing::ElementsAre(6));
  EXPECT_EQ(rstd.scalar_type(), at::kFloat);
  EXPECT_EQ(bias_activation(in.input, in.bias, "gelu").sizes(), in.input.sizes());
}

TEST(PointwiseErrorsTest, SayWhatWasExpected) {
  const Inputs in = Inputs::draw({4, 16}, at::kFloat, at::kFloat);
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "nothing";
  };
  EXPECT_THAT(message([&] { layer_norm(in.input, in.weight, in.bias.narrow(0, 0, 3), kEps); }),
              testing::HasSubstr("bias: expected [16], found [3]"));
  EXPECT_THAT(message([&] { layer_norm(in.input, in.weight, in.bias, kEps, in.input_bias); }),
              testing::HasSubstr("residual: expected one"));
  EXPECT_THAT(message([&] { bias_activation(in.input, in.bias, "relu"); }),
              testing::HasSubstr("expected gelu or quick_gelu, found \"relu\""));
}

struct OnGpuCase {
  std::vector<int64_t> shape;
  at::ScalarType dtype;
};

class PointwiseOnGpu : public testing::TestWithParam<OnGpuCase> {
 protected:
  void SetUp() override {
    if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
    torch::manual_seed(7);
  }
  const at::Device gpu_{at::kCUDA, 0};
};

TEST_P(PointwiseOnGpu, LayerNormIsTheCpus) {
  const auto& [shape, dtype] = GetParam();
  const Inputs in = Inputs::draw(shape, dtype, at::kFloat);
  const Tensors expected = ours(in), found = ours(in.on(gpu_));
  const double rows = static_cast<double>(in.input.numel() / in.input.size(-1));
  for (std::size_t i = 0; i < found.size(); ++i) {
    const bool is_parameter = i >= 3 && i <= 5;
    // Gradients of parameters are sums over the rows of terms of about 1 to 10, each rounded to 2^-24 of the sum.
    const double rounding = is_parameter ? 0x1p-24 * rows : unit(dtype);
    EXPECT_LE(excess(found[i], expected[i], rounding, 16 * rounding), 0) << i;
  }
}

TEST_P(PointwiseOnGpu, BiasActivationsAreTheCpus) {
  const auto& [shape, dtype] = GetParam();
  const Inputs in = Inputs::draw(shape, dtype, at::kFloat);
  const double rows = static_cast<double>(in.input.numel() / in.input.size(-1));
  for (const char* name : {"gelu", "quick_gelu"}) {
    Tensors results[2];
    for (const bool on_gpu : {false, true}) {
      const Inputs where = on_gpu ? in.on(gpu_) : in;
      const at::Tensor x = (where.input * 3).detach().set_requires_grad(true);
      const at::Tensor b = where.input_bias.clone().set_requires_grad(true);
      const at::Tensor out = bias_activation(x, b, name);
      results[on_gpu] = torch::autograd::grad({out}, {x, b}, {where.grad_out});
      results[on_gpu].push_back(out.detach());
    }
    for (const std::size_t i : {0u, 2u}) {
      EXPECT_LE(excess(results[1][i], results[0][i], unit(dtype), 0x1p-18), 0) << name << i;
    }
    EXPECT_LE(excess(results[1][1], results[0][1], 0x1p-24 * rows, 0x1p-20 * rows), 0) << name;
  }
}

TEST_P(PointwiseOnGpu, DropoutIsTheFunctionOfTheSeed) {
  const auto& [shape, dtype] = GetParam();
  const double p = 0.1;
  const Inputs in = Inputs::draw(shape, dtype, at::kFloat), there = in.on(gpu_);
  const auto [sum, out, mean, rstd, rng_state] = forward_operator(there, p);
  const at::Tensor factors = dropout_factors(in.input, p, rng_state.cpu());
  EXPECT_TRUE(at::equal(dropout_factors(there.input, p, rng_state).cpu(), factors));
  const at::Tensor exact = in.residual.to(at::kFloat) + (in.input.to(at::kFloat) + in.input_bias) * factors.ne(0) *
                                                            dropout_scale(dropout_threshold(p));
  EXPECT_LE(excess(sum, exact, unit(dtype), 0x1p-20), 0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PointwiseOnGpu,
                         testing::Values(OnGpuCase{{5, 197, 768}, at::kHalf}, OnGpuCase{{3, 257, 1024}, at::kHalf},
                                         OnGpuCase{{1, 1280}, at::kHalf}, OnGpuCase{{3000, 1280}, at::kBFloat16},
                                         OnGpuCase{{7, 8}, at::kHalf}, OnGpuCase{{33, 2048}, at::kBFloat16},
                                         OnGpuCase{{9, 264}, at::kBFloat16}));

}  // namespace
}  // namespace strobe::ops
