// Attention modules: packed projections, padding, the cache of decoding, and that the three types are one function.
#include "nn/attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "strobe/types.h"

namespace strobe::nn {
namespace {

constexpr int64_t kModel = 32, kHeads = 4;

AttentionConfig config_of(const std::string& attn_type, double dropout = 0.1) {
  return {kModel, kHeads, dropout, attn_type};
}

at::Tensor lengths_of(std::vector<int32_t> values) { return at::tensor(values, at::dtype(at::kInt)); }

/// softmax(q k^T / sqrt(D) + mask) v in double, heads apart; lengths and causality as masks.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& key_lengths,
                           bool causal) {
  const auto heads = [](const at::Tensor& x) {
    return x.to(at::kDouble).view({x.size(0), x.size(1), kHeads, -1}).transpose(1, 2);
  };
  at::Tensor scores = heads(q).matmul(heads(k).transpose(2, 3)) / std::sqrt(double(kModel) / kHeads);
  const at::Tensor columns = at::arange(k.size(1));
  at::Tensor hidden = columns.view({1, 1, 1, -1}).ge(key_lengths.view({-1, 1, 1, 1}));
  if (causal) hidden = hidden.logical_or(columns.view({1, -1}).gt(at::arange(q.size(1)).view({-1, 1})));
  scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  return scores.softmax(-1).matmul(heads(v)).transpose(1, 2).flatten(2);
}

double max_error(const at::Tensor& found, const at::Tensor& expected) {
  return (found.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

/// Forward error of the chain projection, attention, projection in fp32 on O(1) values: a few hundred roundings.
constexpr double kTolerance = 300 * 6e-8;

class Attention : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { torch::manual_seed(7); }
};

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble));
}

/// The whole sublayer, the last projection included.
at::Tensor projected(SelfAttention module, const at::Tensor& x, const Sequences& sequences, bool causal) {
  return module->out()->forward(module->heads(x, sequences, causal));
}
at::Tensor projected(CrossAttention module, const at::Tensor& x, const Sequences& queries,
                     const at::Tensor& keys_values, const Sequences& keys) {
  return module->out()->forward(module->heads(x, queries, keys_values, keys));
}

TEST_P(Attention, SelfAttentionIsTheFormula) {
  const c10::NoGradGuard no_grad;
  SelfAttention module(config_of(GetParam()));
  module->eval();
  const auto parameters = module->named_parameters();
  const at::Tensor x = at::randn({3, 7, kModel});
  const at::Tensor lengths = lengths_of({7, 4, 1});
  for (const bool causal : {false, true}) {
    const at::Tensor qkv = project(x, parameters["qkv.weight"], parameters["qkv.bias"]);
    const auto parts = qkv.chunk(3, -1);
    const at::Tensor expected = project(plain_attention(parts[0], parts[1], parts[2], lengths, causal),
                                        parameters["out.weight"], parameters["out.bias"]);
    const at::Tensor found = projected(module, x, {lengths}, causal);
    for (int64_t b = 0; b < 3; ++b) {
      const int64_t n = lengths[b].item<int32_t>();
      EXPECT_LE(max_error(found[b].narrow(0, 0, n), expected[b].narrow(0, 0, n)), kTolerance) << "causal " << causal;
    }
  }
}

TEST_P(Attention, CrossAttentionIsTheFormula) {
  const c10::NoGradGuard no_grad;
  CrossAttention module(config_of(GetParam()));
  module->eval();
  const auto parameters = module->named_parameters();
  const at::Tensor x = at::randn({2, 5, kModel}), memory = at::randn({2, 9, kModel});
  const at::Tensor lengths = lengths_of({9, 3});
  const at::Tensor q = project(x, parameters["q.weight"], parameters["q.bias"]);
  const auto kv = project(memory, parameters["kv.weight"], parameters["kv.bias"]).chunk(2, -1);
  const at::Tensor expected =
      project(plain_attention(q, kv[0], kv[1], lengths, false), parameters["out.weight"], parameters["out.bias"]);
  EXPECT_LE(max_error(projected(module, x, {}, module->keys_values(memory), {lengths}), expected), kTolerance);
}

/// Sequences of these lengths, one after the other.
Sequences packed_of(const std::vector<int32_t>& lengths) {
  Sequences sequences{.cu_seqlens = at::cat({lengths_of({0}), lengths_of(lengths).cumsum(0, at::kInt)})};
  sequences.longest = *std::max_element(lengths.begin(), lengths.end());
  return sequences;
}

/// [B, N, ...] -> [T, ...].
at::Tensor pack(const at::Tensor& padded, const std::vector<int32_t>& lengths) {
  std::vector<at::Tensor> parts;
  for (std::size_t b = 0; b < lengths.size(); ++b) parts.push_back(padded[b].narrow(0, 0, lengths[b]));
  return at::cat(parts);
}

/// The real rows of what `run` gives, and its parameters' gradients, from one seed of dropout.
template <class Run>
std::vector<at::Tensor> results_of(torch::nn::Module& module, const Run& run) {
  module.zero_grad();
  torch::manual_seed(12);
  const at::Tensor out = run();
  out.square().sum().backward();
  std::vector<at::Tensor> results{out.detach()};
  for (const at::Tensor& parameter : module.parameters()) results.push_back(parameter.grad().clone());
  return results;
}

void expect_same(const std::vector<at::Tensor>& found, const std::vector<at::Tensor>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double scale = std::max(1.0, expected[i].abs().max().item<double>());
    EXPECT_LE(max_error(found[i], expected[i]), kTolerance * scale) << i;
  }
}

TEST_P(Attention, PackedSequencesAreThePaddedOnes) {
  SelfAttention module(config_of(GetParam(), 0.3));
  const std::vector<int32_t> lengths = {33, 1, 20, 5};
  const at::Tensor x = at::randn({4, 33, kModel});
  for (const bool causal : {false, true}) {
    const auto padded =
        results_of(*module, [&] { return pack(projected(module, x, {lengths_of(lengths)}, causal), lengths); });
    const auto packed =
        results_of(*module, [&] { return projected(module, pack(x, lengths), packed_of(lengths), causal); });
    expect_same(packed, padded);
  }
}

TEST_P(Attention, PackedSentencesReadTheirOwnPackedMemory) {
  CrossAttention module(config_of(GetParam(), 0.3));
  const std::vector<int32_t> lengths = {4, 17, 9}, memory_lengths = {21, 3, 8};
  const at::Tensor x = at::randn({3, 17, kModel}), memory = at::randn({3, 21, kModel});
  const auto padded = results_of(*module, [&] {
    const at::Tensor keys_values = module->keys_values(memory);
    return pack(projected(module, x, {lengths_of(lengths)}, keys_values, {lengths_of(memory_lengths)}), lengths);
  });
  const auto packed = results_of(*module, [&] {
    const at::Tensor keys_values = module->keys_values(pack(memory, memory_lengths));
    return projected(module, pack(x, lengths), packed_of(lengths), keys_values, packed_of(memory_lengths));
  });
  expect_same(packed, padded);
}

TEST_P(Attention, PaddingReachesNothing) {
  SelfAttention module(config_of(GetParam(), 0.0));
  const at::Tensor lengths = lengths_of({6, 2});
  at::Tensor x = at::randn({2, 6, kModel});
  const auto run = [&](const at::Tensor& input) {
    module->zero_grad();
    const at::Tensor out = projected(module, input, {lengths}, false)[1].narrow(0, 0, 2);
    out.sum().backward();
    return std::pair(out.detach(), module->named_parameters()["out.weight"].grad().clone());
  };
  const auto [out, gradient] = run(x);
  x = x.clone();
  x[1].narrow(0, 2, 4).fill_(1e4);
  const auto [other_out, other_gradient] = run(x);
  EXPECT_TRUE(at::equal(out, other_out));
  EXPECT_TRUE(at::equal(gradient, other_gradient));
}

TEST_P(Attention, StepsEqualTheWholeSequence) {
  const c10::NoGradGuard no_grad;
  SelfAttention module(config_of(GetParam()));
  module->eval();
  const at::Tensor x = at::randn({2, 40, kModel});  // longer than the cache's first capacity
  const at::Tensor whole = projected(module, x, {}, true);
  KeyValueCache cache;
  for (int64_t t = 0; t < x.size(1); ++t) {
    EXPECT_LE(max_error(module->out()->forward(module->step(x.select(1, t), cache)), whole.select(1, t)), kTolerance)
        << "token " << t;
  }
  EXPECT_EQ(cache.length(), x.size(1));
}

TEST_P(Attention, HypothesesShareTheirSentencesMemory) {
  const c10::NoGradGuard no_grad;
  CrossAttention module(config_of(GetParam()));
  module->eval();
  const at::Tensor memory = at::randn({2, 9, kModel}), lengths = lengths_of({9, 3});
  const at::Tensor hypotheses = at::randn({2, 3, kModel});
  const at::Tensor together = projected(module, hypotheses, {}, module->keys_values(memory), {lengths}).flatten(0, 1);
  const at::Tensor apart =
      projected(module, hypotheses.flatten(0, 1).unsqueeze(1), {}, module->keys_values(memory.repeat_interleave(3, 0)),
                {lengths.repeat_interleave(3, 0)});
  EXPECT_LE(max_error(together, apart.squeeze(1)), kTolerance);
}

TEST_P(Attention, DropoutActsInTrainingOnly) {
  const c10::NoGradGuard no_grad;
  SelfAttention module(config_of(GetParam(), 0.5));
  const at::Tensor x = at::randn({2, 16, kModel});
  const auto run = [&] { return projected(module, x, {}, false); };
  EXPECT_FALSE(at::equal(run(), run()));
  module->eval();
  EXPECT_TRUE(at::equal(run(), run()));
}

INSTANTIATE_TEST_SUITE_P(Types, Attention, testing::Values("dotscale", "flash_attn", "imp_flash_attn"));

TEST(AttentionTypes, DrawTheSameDropout) {
  const at::Tensor x = [] {
    torch::manual_seed(1);
    return at::randn({3, 33, kModel});
  }();
  std::vector<at::Tensor> outputs, gradients;
  for (const char* attn_type : {"dotscale", "flash_attn", "imp_flash_attn"}) {
    torch::manual_seed(2);
    SelfAttention module(config_of(attn_type, 0.3));
    const at::Tensor out = projected(module, x, {lengths_of({33, 20, 5})}, true);
    out.square().sum().backward();
    outputs.push_back(out.detach());
    gradients.push_back(module->named_parameters()["qkv.weight"].grad());
  }
  const double scale = gradients[0].abs().max().item<double>();
  for (std::size_t i = 1; i < outputs.size(); ++i) {
    EXPECT_LE(max_error(outputs[i], outputs[0]), kTolerance);
    EXPECT_LE(max_error(gradients[i], gradients[0]), kTolerance * scale);
  }
}

TEST(KeyValueCache, GrowsAndReorders) {
  KeyValueCache cache;
  std::vector<at::Tensor> tokens;
  at::Tensor all;
  for (int t = 0; t < 50; ++t) {
    tokens.push_back(at::full({2, 2, 3}, t) + at::arange(2).view({2, 1, 1}) * 100);
    all = cache.append(tokens.back());
    ASSERT_EQ(all.size(1), t + 1);
  }
  for (int t = 0; t < 50; ++t) EXPECT_TRUE(at::equal(all.select(1, t), tokens[t])) << t;
  cache.reorder(at::tensor({1, 1, 0}, at::dtype(at::kLong)));
  const at::Tensor next = at::full({3, 2, 3}, 7, at::dtype(at::kLong));
  all = cache.append(next);
  EXPECT_EQ(all.size(0), 3);
  for (int row : {0, 1}) EXPECT_TRUE(at::equal(all[row][49], tokens[49][1]));
  EXPECT_TRUE(at::equal(all[2][10], tokens[10][0]));
  EXPECT_TRUE(at::equal(all.select(1, 50), next));
}

TEST(AttentionConfig, HeadsMustDivideTheModel) {
  EXPECT_THROW(SelfAttentionImpl({30, 4, 0.1, "dotscale"}), Error);
  EXPECT_THROW(CrossAttentionImpl({32, 0, 0.1, "dotscale"}), Error);
}

TEST(AttentionInit, EachProjectionIsXavierUniform) {
  torch::manual_seed(3);
  SelfAttention module(AttentionConfig{128, 8, 0.1, "dotscale"});
  const double bound = std::sqrt(6.0 / 256.0);
  for (const at::Tensor& projection : module->named_parameters()["qkv.weight"].chunk(3)) {
    const double largest = projection.abs().max().item<double>();
    EXPECT_LE(largest, bound);
    EXPECT_GE(largest, 0.999 * bound);  // of 16384 draws, none above: probability 0.999^16384 < 1e-7
  }
}

}  // namespace
}  // namespace strobe::nn
