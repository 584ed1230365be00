// Layers: the pre-norm and post-norm formulas, and decoding steps against the whole sequence.
#include "nn/layers.h"

#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

namespace strobe::nn {
namespace {

LayerConfig config_of(const std::string& attn_type) {
  LayerConfig config;
  config.d_model = 32;
  config.num_heads = 4;
  config.d_ff = 64;
  config.attn_type = attn_type;
  return config;
}

/// A layer is a few hundred fp32 roundings deep on O(1) values.
constexpr double kTolerance = 500 * 6e-8;

double max_error(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(FeedForward, IsTheFormula) {
  const c10::NoGradGuard no_grad;
  torch::manual_seed(1);
  FeedForward module(config_of("dotscale"));
  module->eval();
  const auto p = module->named_parameters();
  const at::Tensor x = at::randn({2, 3, 32});
  const at::Tensor expected =
      at::linear(at::relu(at::linear(x, p["hidden.weight"], p["hidden.bias"])), p["out.weight"], p["out.bias"]);
  EXPECT_LE(max_error(module->out()->forward(module->hidden(x)), expected), kTolerance);
}

/// Of one layer as a stack without a norm behind it, the sum.
at::Tensor output(EncoderLayer layer, const at::Tensor& x) {
  const NormedSum input = {x, layer->first_norm()->forward(x)};
  return layer->forward(input, {}, LayerNorm(32, 1e-6)).sum;
}

TEST(EncoderLayer, NormalisesBeforeEachSublayer) {
  const c10::NoGradGuard no_grad;
  torch::manual_seed(2);
  EncoderLayer layer(config_of("dotscale"));
  layer->eval();
  // With the sublayers' last projections at zero, a pre-norm layer is the identity, whatever the norms' gains.
  auto p = layer->named_parameters();
  for (const char* name :
       {"self_attention.out.weight", "self_attention.out.bias", "feed_forward.out.weight", "feed_forward.out.bias"}) {
    p[name].zero_();
  }
  const at::Tensor x = at::randn({2, 5, 32}) * 3;
  EXPECT_EQ(max_error(output(layer, x), x), 0.0);
  // With attention alone at zero, what is left is x + feed_forward(norm(x)) with eps 1e-6.
  p["feed_forward.out.bias"].fill_(0.5);
  p["feed_forward.out.weight"].normal_();
  const at::Tensor norm = at::layer_norm(x, {32}, p["feed_forward_norm.weight"], p["feed_forward_norm.bias"], 1e-6);
  const at::Tensor hidden = at::relu(at::linear(norm, p["feed_forward.hidden.weight"], p["feed_forward.hidden.bias"]));
  const at::Tensor expected = x + at::linear(hidden, p["feed_forward.out.weight"], p["feed_forward.out.bias"]);
  EXPECT_LE(max_error(output(layer, x), expected), 10 * kTolerance);  // values up to 30
}

TEST(EncoderLayer, NormalisesAfterEachResidual) {
  const c10::NoGradGuard no_grad;
  torch::manual_seed(4);
  LayerConfig config = config_of("dotscale");
  config.norm = NormPlacement::kPost;
  EncoderLayer layer(config);
  layer->eval();
  auto p = layer->named_parameters();
  for (const char* name : {"self_attention.out.weight", "self_attention.out.bias"}) p[name].zero_();
  const at::Tensor x = at::randn({2, 5, 32}) * 3;
  const auto norm = [&](const std::string& name, const at::Tensor& y) {
    return at::layer_norm(y, {32}, p[name + ".weight"], p[name + ".bias"], 1e-6);
  };
  p["self_attention_norm.weight"].normal_();
  p["feed_forward_norm.bias"].normal_();
  const at::Tensor y = norm("self_attention_norm", x);
  const at::Tensor hidden = at::relu(at::linear(y, p["feed_forward.hidden.weight"], p["feed_forward.hidden.bias"]));
  const at::Tensor out = at::linear(hidden, p["feed_forward.out.weight"], p["feed_forward.out.bias"]);
  EXPECT_LE(max_error(layer->forward({x, x}, {}, LayerNorm(nullptr)).normed, norm("feed_forward_norm", y + out)),
            kTolerance);
}

class DecoderLayerTypes : public testing::TestWithParam<const char*> {};

TEST_P(DecoderLayerTypes, StepsEqualTheWholeSequence) {
  const c10::NoGradGuard no_grad;
  torch::manual_seed(3);
  DecoderLayer layer(config_of(GetParam()));
  layer->eval();
  const at::Tensor x = at::randn({2, 20, 32}), memory = at::randn({2, 11, 32});
  const at::Tensor memory_lengths = at::tensor({11, 6}, at::dtype(at::kInt));
  const LayerNorm next(32, 1e-6);
  const auto normed = [&](const at::Tensor& y) { return NormedSum{y, layer->first_norm()->forward(y)}; };
  const at::Tensor whole = layer->forward(normed(x), {}, memory, {memory_lengths}, next).normed;
  KeyValueCache cache;
  const at::Tensor keys_values = layer->memory_keys_values(memory);
  for (int64_t t = 0; t < 20; ++t) {
    const at::Tensor step = layer->step(normed(x.select(1, t)), cache, keys_values, memory_lengths, next).normed;
    EXPECT_LE(max_error(step, whole.select(1, t)), kTolerance) << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, DecoderLayerTypes, testing::Values("dotscale", "flash_attn", "imp_flash_attn"));

}  // namespace
}  // namespace strobe::nn
