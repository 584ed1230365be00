// ops/images.h on a GPU against ATen on the CPU.
#include "ops/images.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

namespace strobe::ops {
namespace {

class ImagesOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
    torch::manual_seed(11);
  }
  const at::Device gpu_{at::kCUDA, 0};
};

TEST_F(ImagesOnGpu, NormalizedAsByTheCpuBitForBit) {
  const std::array<float, 3> mean = {0.48145466f, 0.4578275f, 0.40821073f},
                             deviation = {0.26862954f, 0.26130258f, 0.27577711f};
  const at::Tensor images = at::randint(0, 256, {3, 10, 6, 3}, at::kByte);
  const auto channels = [](const std::array<float, 3>& values) {
    return at::tensor({values[0], values[1], values[2]}, at::kFloat).view({1, 3, 1, 1});
  };
  const at::Tensor expected =
      (images.permute({0, 3, 1, 2}).to(at::kFloat).div(at::tensor(255.0f, at::kFloat)) - channels(mean)) /
      channels(deviation);
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    ASSERT_TRUE(fuses_normalize_images(images.to(gpu_)));
    const at::Tensor found = normalize_images(images.to(gpu_), mean, deviation, format);
    EXPECT_TRUE(found.is_contiguous(format));
    EXPECT_TRUE(at::equal(found.cpu(), expected));
  }
}

TEST_F(ImagesOnGpu, AveragePoolsAreATens) {
  for (const auto dtype : {at::kHalf, at::kBFloat16}) {
    const at::Tensor x = at::randn({3, 24, 10, 6}).to(dtype);
    const at::Tensor grad_out = at::randn({3, 24, 5, 3}).to(dtype);
    const at::Tensor plain = x.to(at::kFloat).set_requires_grad(true);
    const at::Tensor expected = at::avg_pool2d(plain, {2, 2});
    const at::Tensor gradient = torch::autograd::grad({expected}, {plain}, {grad_out.to(at::kFloat)})[0];
    const at::Tensor ours = x.to(gpu_).contiguous(at::MemoryFormat::ChannelsLast).set_requires_grad(true);
    const at::Tensor found = average_pool(ours);
    EXPECT_TRUE(at::equal(torch::autograd::grad({found}, {ours}, {grad_out.to(gpu_)})[0].cpu(), gradient.to(dtype)));
    // The order of a sum of four may round the last bit differently.
    const double unit = dtype == at::kHalf ? 0x1p-10 : 0x1p-7;
    const at::Tensor error = (found.detach().cpu().to(at::kFloat) - expected.detach()).abs();
    EXPECT_LE((error - expected.detach().abs() * unit).max().item<double>(), 0x1p-20);
  }
}

}  // namespace
}  // namespace strobe::ops
