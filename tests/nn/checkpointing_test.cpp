#include "nn/checkpointing.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <memory>

#include "nn/dropout.h"
#include "nn/linear.h"

namespace strobe::nn {
namespace {

/// Some layers of sigmoid, dropout, linear, tanh and dropout, as one block each or one after another.
struct Layers {
  explicit Layers(int count, int64_t width = 32) {
    at::manual_seed(1);
    for (int i = 0; i < count; ++i) layers.emplace_back(width, width);
  }

  at::Tensor forward(at::Tensor x, bool checkpointed) {
    for (Linear& layer : layers) {
      const Block block = [&layer](const at::Tensor& input) {
        return nn::dropout(layer->forward(nn::dropout(input.sigmoid(), 0.3, true)).tanh(), 0.2, true);
      };
      x = checkpointed ? checkpoint(block, x, layer->parameters()) : block(x);
    }
    return x;
  }

  std::vector<at::Tensor> parameters() const {
    std::vector<at::Tensor> all;
    for (const Linear& layer : layers) all.insert(all.end(), {layer->weight, layer->bias});
    return all;
  }

  std::vector<Linear> layers;
};

/// The output, the gradients of x and of all parameters, and the next number of the generator.
std::vector<at::Tensor> results(Layers& layers, const at::Tensor& input, bool checkpointed) {
  at::manual_seed(7);
  const at::Tensor x = input.detach().clone().set_requires_grad(true);
  for (const at::Tensor& parameter : layers.parameters()) parameter.mutable_grad().reset();
  const at::Tensor out = layers.forward(x, checkpointed);
  out.square().sum().backward();
  std::vector<at::Tensor> all = {out.detach(), x.grad()};
  for (const at::Tensor& parameter : layers.parameters()) all.push_back(parameter.grad());
  all.push_back(at::randn({4}));
  return all;
}

void expect_same(const std::vector<at::Tensor>& one, const std::vector<at::Tensor>& other) {
  ASSERT_EQ(one.size(), other.size());
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], other[i])) << i;
}

class Bf16Region {
 public:
  Bf16Region() { at::autocast::set_autocast_enabled(at::kCPU, true); }
  ~Bf16Region() {
    at::autocast::set_autocast_enabled(at::kCPU, false);
    at::autocast::clear_cache();
  }
};

TEST(CheckpointingTest, GradientsAreThoseOfAPlainCallBitForBitWithDropout) {
  Layers layers(3);
  const at::Tensor x = at::randn({40, 32});
  expect_same(results(layers, x, true), results(layers, x, false));
}

TEST(CheckpointingTest, TheAutocastRegionIsEnteredAgain) {
  Layers layers(2);
  const at::Tensor input = at::randn({40, 32});
  const auto gradients = [&](bool checkpointed) {
    at::manual_seed(7);
    for (const at::Tensor& parameter : layers.parameters()) parameter.mutable_grad().reset();
    at::Tensor out;
    {
      const Bf16Region region;
      out = layers.forward(input, checkpointed);
    }
    EXPECT_EQ(out.scalar_type(), at::kBFloat16);
    out.sum().backward();  // outside of the region, as trainers do
    std::vector<at::Tensor> all;
    for (const at::Tensor& parameter : layers.parameters()) all.push_back(parameter.grad());
    return all;
  };
  expect_same(gradients(true), gradients(false));
}

TEST(CheckpointingTest, AWeightThatIsUsedAgainInTheSameRegionKeepsItsGradient) {
  Layers layers(1);
  const at::Tensor x = at::randn({40, 32});
  const Bf16Region region;
  layers.forward(x, true).sum().backward();
  const at::Tensor out = layers.layers[0]->forward(x);
  EXPECT_TRUE(torch::autograd::grad({out.sum()}, {layers.layers[0]->weight})[0].defined());
}

TEST(CheckpointingTest, ParametersAloneMayNeedAGradient) {
  Layers layers(1);
  layers.forward(at::randn({40, 32}), true).sum().backward();
  for (const at::Tensor& parameter : layers.parameters()) EXPECT_TRUE(parameter.grad().defined());
}

TEST(CheckpointingTest, FrozenAndUnusedParametersGetNone) {
  Layers layers(2);
  layers.layers[0]->weight.set_requires_grad(false);
  const at::Tensor x = at::randn({40, 32}).set_requires_grad(true);
  const Block uses_the_first = [&](const at::Tensor& input) { return layers.layers[0]->forward(input); };
  checkpoint(uses_the_first, x, layers.parameters()).sum().backward();
  EXPECT_FALSE(layers.layers[0]->weight.grad().defined());
  EXPECT_TRUE(layers.layers[0]->bias.grad().defined());
  EXPECT_FALSE(layers.layers[1]->weight.grad().defined());
  EXPECT_TRUE(x.grad().defined());
}

TEST(CheckpointingTest, NothingIsRecordedWithoutGradients) {
  Layers layers(1);
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(layers.forward(at::randn({40, 32}), true).requires_grad());
}

/// c10d::Reducer waits for these hooks and fails on a second call in one backward.
TEST(CheckpointingTest, HooksOnTheAccumulationOfAGradientRunOnceAndAfterIt) {
  Layers layers(3);
  const std::vector<at::Tensor> parameters = layers.parameters();
  std::vector<int> calls(parameters.size());
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators;  // kept: the hooks live in them
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    accumulators.push_back(torch::autograd::impl::grad_accumulator(parameters[i]));
    accumulators.back()->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(
        [&, i](const torch::autograd::variable_list& outputs, const torch::autograd::variable_list&) {
          EXPECT_TRUE(parameters[i].grad().defined());
          ++calls[i];
          return outputs;
        }));
  }
  const at::Tensor out = layers.forward(at::randn({40, 32}), true);
  out.sum().backward();
  EXPECT_EQ(calls, std::vector<int>(parameters.size(), 1));
}

/// The most bytes that were allocated at once on this thread since it was made.
class AllocationMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    current_ += size;
    peak_ = std::max(peak_, current_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }

 private:
  int64_t current_ = 0, peak_ = 0;
};

int64_t peak_bytes(Layers& layers, const at::Tensor& x, bool checkpointed) {
  auto meter = std::make_shared<AllocationMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  results(layers, x, checkpointed);
  return meter->peak();
}

TEST(CheckpointingTest, KeepsOneActivationOfEachBlock) {
  constexpr int kLayers = 12;
  Layers layers(kLayers);
  const at::Tensor x = at::randn({4096, 32});
  const auto activation = static_cast<int64_t>(x.nbytes());
  // A plain call keeps a sigmoid and a tanh and the linear layer's input of every layer; checkpointed, a layer keeps
  // its input, and one layer at a time also what a plain call would.
  EXPECT_GT(peak_bytes(layers, x, false), 3 * kLayers * activation);
  EXPECT_LT(peak_bytes(layers, x, true), (kLayers + 10) * activation);
}

}  // namespace
}  // namespace strobe::nn
