// ops::batch_norm: ATen's where it is ATen, the CUDA kernels against ATen in double precision.
#include "ops/batch_norm.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <vector>

namespace strobe::ops {
namespace {

using Tensors = std::vector<at::Tensor>;

struct Case {
  std::vector<int64_t> shape;
  at::ScalarType dtype;
  bool residual, rectifies;
};

struct Inputs {
  at::Tensor x, residual, weight, bias, grad_out;

  explicit Inputs(const Case& c) {
    const auto images = [&] { return at::randn(c.shape, at::kDouble).to(c.dtype); };
    const int64_t channels = c.shape[1];
    // Means far from 0, so that a variance that is a difference of squares would show.
    const at::Tensor means = at::randn({1, channels, 1, 1}, at::kDouble) * 20;
    x = (images().to(at::kDouble) + means).to(c.dtype);
    residual = c.residual ? images() : at::Tensor();
    weight = at::randn({channels}, at::kDouble).to(at::kFloat);
    bias = at::randn({channels}, at::kDouble).to(at::kFloat);
    grad_out = images();
  }
};

/// out, running mean and variance, then the gradients of x, weight, bias and the residual.
template <class Norm>
Tensors results(const Inputs& in, at::Device device, at::ScalarType activations, at::ScalarType parameters,
                const Norm& norm) {
  const auto leaf = [&](const at::Tensor& t, at::ScalarType dtype) {
    const auto format = t.dim() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    return t.to(device, dtype).contiguous(format).detach().set_requires_grad(true);
  };
  const at::Tensor x = leaf(in.x, activations), weight = leaf(in.weight, parameters), bias = leaf(in.bias, parameters);
  const at::Tensor residual = in.residual.defined() ? leaf(in.residual, activations) : at::Tensor();
  const at::Tensor mean = at::full_like(weight, 0.5).detach(), variance = at::full_like(weight, 2.0).detach();
  const at::Tensor out = norm(x, residual, weight, bias, mean, variance);
  Tensors sources = {x, weight, bias};
  if (residual.defined()) sources.push_back(residual);
  Tensors all = torch::autograd::grad({out}, sources, {in.grad_out.to(device, out.scalar_type())});
  all.insert(all.begin(), {out.detach(), mean, variance});
  return all;
}

class BatchNormTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { torch::manual_seed(9); }

  Tensors ours(const Inputs& in, at::Device device, at::ScalarType activations, at::ScalarType parameters) const {
    const BatchNormOptions options{.momentum = 0.1, .eps = 1e-5, .rectifies = GetParam().rectifies};
    return results(
        in, device, activations, parameters,
        [&](const auto& x, const auto& residual, const auto& weight, const auto& bias, const auto& mean,
            const auto& variance) { return batch_norm(x, residual, weight, bias, mean, variance, options); });
  }

  Tensors exact(const Inputs& in) const {
    return results(in, at::kCPU, at::kDouble, at::kDouble,
                   [&](const auto& x, const auto& residual, const auto& weight, const auto& bias, const auto& mean,
                       const auto& variance) {
                     at::Tensor out = at::batch_norm(x, weight, bias, mean, variance, true, 0.1, 1e-5, false);
                     if (residual.defined()) out = out + residual;
                     return GetParam().rectifies ? out.relu() : out;
                   });
  }
};

TEST_P(BatchNormTest, OnTheCpuIsATens) {
  const Inputs in(GetParam());
  const Tensors found = ours(in, at::kCPU, at::kDouble, at::kDouble), expected = exact(in);
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_LE((found[i] - expected[i]).abs().max().item<double>(), 1e-10) << i;
  }
}

/// Where the rectifier's argument is so near to 0 that rounding decides, gradients may differ: such elements count as
/// outliers, of which there are few.
TEST_P(BatchNormTest, OnAGpuRoundsWhatDoublePrecisionGives) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  const Inputs in(GetParam());
  const auto dtype = GetParam().dtype;
  const Tensors found = ours(in, at::Device(at::kCUDA, 0), dtype, at::kFloat), expected = exact(in);
  const double unit = dtype == at::kHalf ? 0x1p-10 : 0x1p-7;
  const auto rows = static_cast<double>(in.x.numel() / in.x.size(1));
  for (std::size_t i = 0; i < found.size(); ++i) {
    const at::Tensor difference = (found[i].cpu().to(at::kDouble) - expected[i]).abs();
    const bool is_image = expected[i].dim() == 4, is_gradient = i >= 3;
    const double rounding = is_image ? unit : 1e-5, slack = is_image ? 4 * unit : is_gradient ? 2e-5 * rows : 1e-4;
    const at::Tensor wrong = difference > expected[i].abs() * rounding + slack;
    const double allowed = is_image && is_gradient && GetParam().rectifies ? 0.002 : 0.0;
    EXPECT_LE(wrong.to(at::kDouble).mean().item<double>(), allowed) << i << " " << difference.max().item<double>();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BatchNormTest,
    testing::Values(Case{{4, 32, 17, 19}, at::kHalf, false, true}, Case{{4, 64, 14, 14}, at::kHalf, true, true},
                    Case{{2, 24, 5, 7}, at::kBFloat16, false, false}, Case{{8, 256, 14, 14}, at::kBFloat16, true, true},
                    Case{{3, 2048, 7, 7}, at::kHalf, true, true}, Case{{2, 8, 64, 64}, at::kHalf, false, false}));

}  // namespace
}  // namespace strobe::ops
