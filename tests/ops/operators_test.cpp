// What the operators add to the algorithms: packed inputs, seeds, autocast, autograd's edges, errors.
#include <ATen/autocast_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "ops/options.h"
#include "tests/ops/problem.h"

namespace strobe::ops {
namespace {

using testing::HasSubstr;
using Tensor3 = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// The inner operators by name, as Python's torch.ops.strobe calls them.
Tensor3 inner_forward(const AttentionOptions& options, const Problem& p) {
  static const OptionsOp<Tensor3(const at::Tensor&, const at::Tensor&, const at::Tensor&)> op(
      "strobe::attention_forward");
  return op(options, p.q, p.k, p.v);
}
Tensor3 inner_backward(const AttentionOptions& options, const Problem& p, const at::Tensor& out,
                       const at::Tensor& lse) {
  static const OptionsOp<Tensor3(const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&, const at::Tensor&)>
      op("strobe::attention_backward");
  return op(options, p.grad_out, p.grad_lse, p.q, p.k, p.v, out, lse);
}

class Operators : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    torch::manual_seed(4);
    options_.attn_type = GetParam();
  }
  AttentionOptions options_;
};

TEST_P(Operators, QkvPackedEqualsUnpackedWithOneGradient) {
  options_.causal = true;
  options_.return_lse = true;
  options_.dropout_p = 0.2;
  options_.rng_state = rng_state(3, 4);
  options_.key_lengths = int_tensor({9, 4});
  const Problem p = Problem::dense(2, 9, 9, 4, 2, 32).cast(at::kFloat);
  const Results expected = run(p, options_);
  const at::Tensor qkv = leaf(at::cat({p.q, p.k, p.v}, 2));
  const auto [out, lse] = attention_qkvpacked(qkv, 4, options_);
  const at::Tensor grad = torch::autograd::grad({out, lse}, {qkv}, {p.grad_out, p.grad_lse})[0];
  EXPECT_TRUE(out.equal(expected.out));
  EXPECT_TRUE(lse.equal(expected.lse));
  EXPECT_TRUE(grad.equal(at::cat({expected.grad_q, expected.grad_k, expected.grad_v}, 2)));
  EXPECT_TRUE(grad.is_contiguous());
}

TEST_P(Operators, KvPackedEqualsUnpackedWithOneGradient) {
  options_.cu_seqlens_q = int_tensor({0, 3, 8});
  options_.cu_seqlens_k = int_tensor({0, 7, 9});
  const Problem p = Problem::varlen(8, 9, 4, 2, 32).cast(at::kFloat);
  const Results expected = run(p, options_);
  const at::Tensor q = leaf(p.q), kv = leaf(at::cat({p.k, p.v}, 1));
  const at::Tensor out = std::get<0>(attention_kvpacked(q, kv, options_));
  const auto grads = torch::autograd::grad({out}, {q, kv}, {p.grad_out});
  EXPECT_TRUE(out.equal(expected.out));
  EXPECT_TRUE(grads[0].equal(expected.grad_q));
  EXPECT_TRUE(grads[1].equal(at::cat({expected.grad_k, expected.grad_v}, 1)));
}

TEST_P(Operators, GeneratorDecidesDropout) {
  options_.dropout_p = 0.5;
  const Problem p = Problem::dense(1, 20, 20, 2, 2, 32).cast(at::kFloat);
  const auto draw = [&] { return std::get<0>(attention(p.q, p.k, p.v, options_)); };
  torch::manual_seed(11);
  const at::Tensor first = draw(), second = draw();
  torch::manual_seed(11);
  EXPECT_TRUE(draw().equal(first));
  EXPECT_FALSE(second.equal(first));
  const auto [out, lse, state] = inner_forward(options_, p);
  options_.rng_state = state;
  EXPECT_TRUE(draw().equal(out));
}

TEST_P(Operators, InnerBackwardEqualsAutograd) {
  options_.dropout_p = 0.5;
  options_.rng_state = rng_state(1, 1);
  options_.return_lse = true;
  const Problem p = Problem::dense(1, 20, 20, 2, 2, 32).cast(at::kFloat);
  const Results expected = run(p, options_);
  const auto [out, lse, state] = inner_forward(options_, p);
  const auto [grad_q, grad_k, grad_v] = inner_backward(options_, p, out, lse);
  EXPECT_TRUE(grad_q.equal(expected.grad_q));
  EXPECT_TRUE(grad_k.equal(expected.grad_k));
  EXPECT_TRUE(grad_v.equal(expected.grad_v));
}

TEST_P(Operators, OnlyTheLseHasAGradient) {
  options_.return_lse = true;
  const Problem p = Problem::dense(1, 5, 6, 2, 1, 32).cast(at::kFloat);
  const at::Tensor q = leaf(p.q), k = leaf(p.k), v = leaf(p.v);
  const at::Tensor lse = std::get<1>(attention(q, k, v, options_));
  const auto grads = torch::autograd::grad({lse}, {q, k, v}, {p.grad_lse}, std::nullopt, false, true);
  EXPECT_GT(grads[0].abs().max().item<double>(), 0.0);
  EXPECT_GT(grads[1].abs().max().item<double>(), 0.0);
  EXPECT_EQ(grads[2].abs().max().item<double>(), 0.0);
}

TEST_P(Operators, WithoutGradientsAndInInferenceMode) {
  const Problem p = Problem::dense(1, 5, 6, 2, 1, 32).cast(at::kFloat);
  const at::Tensor expected = run(p, options_).out;
  EXPECT_TRUE(std::get<0>(attention(p.q, p.k, p.v, options_)).equal(expected));
  const c10::InferenceMode inference;
  const at::Tensor out = std::get<0>(attention(p.q.clone(), p.k.clone(), p.v.clone(), options_));
  EXPECT_TRUE(out.is_inference());
  EXPECT_TRUE(out.equal(expected));
}

/// torch.autocast(device_type="cpu", dtype).
class CpuAutocast {
 public:
  explicit CpuAutocast(at::ScalarType dtype) : before_(at::autocast::get_autocast_dtype(at::kCPU)) {
    at::autocast::set_autocast_dtype(at::kCPU, dtype);
    at::autocast::set_autocast_enabled(at::kCPU, true);
  }
  ~CpuAutocast() {
    at::autocast::set_autocast_enabled(at::kCPU, false);
    at::autocast::set_autocast_dtype(at::kCPU, before_);
    at::autocast::clear_cache();
  }

 private:
  at::ScalarType before_;
};

TEST_P(Operators, AutocastCastsAndGradientsComeBackInTheInputsDtype) {
  const Problem p = Problem::dense(2, 9, 9, 4, 4, 32).cast(at::kFloat);
  const at::Tensor expected = run(p.cast(at::kBFloat16), options_).out;
  const CpuAutocast autocast(at::kBFloat16);
  const at::Tensor q = leaf(p.q), kv = leaf(at::cat({p.k, p.v}, 2));
  const at::Tensor out = std::get<0>(attention_kvpacked(q, kv, options_));
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(out.equal(expected));
  EXPECT_EQ(torch::autograd::grad({out}, {q}, {out})[0].scalar_type(), at::kFloat);
  EXPECT_TRUE(std::get<0>(attention(p.q, p.k, p.v, options_)).equal(expected));
  EXPECT_TRUE(std::get<0>(attention_qkvpacked(at::cat({p.q, p.k, p.v}, 2), 4, options_)).equal(expected));
}

TEST(Autocast, Fp16OnTheCpuKeepsFp32ForTheFlashTypes) {
  const Problem p = Problem::dense(2, 9, 9, 4, 4, 32).cast(at::kFloat);
  const CpuAutocast autocast(at::kHalf);
  AttentionOptions options;
  EXPECT_EQ(std::get<0>(attention(p.q, p.k, p.v, options)).scalar_type(), at::kFloat);
  options.attn_type = "dotscale";
  EXPECT_EQ(std::get<0>(attention(p.q, p.k, p.v, options)).scalar_type(), at::kHalf);
}

INSTANTIATE_TEST_SUITE_P(All, Operators, testing::Values("dotscale", "flash_attn", "imp_flash_attn"),
                         [](const auto& info) { return std::string(info.param); });

/// The text of what `body` throws.
template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

TEST_P(Operators, DoubleBackwardRaisesByName) {
  const Problem p = Problem::dense(1, 4, 4, 1, 1, 32).cast(at::kFloat);
  const at::Tensor q = leaf(p.q);
  const at::Tensor out = std::get<0>(attention(q, p.k, p.v, options_));
  const at::Tensor grad = torch::autograd::grad({out}, {q}, {p.grad_out}, std::nullopt, /*create_graph=*/true)[0];
  EXPECT_THAT(error_of([&] { torch::autograd::grad({grad}, {q}, {p.grad_out}); }),
              HasSubstr("strobe::attention: double backward is not offered"));
}

TEST(Errors, NameArgumentExpectedAndFound) {
  const Problem p = Problem::dense(2, 4, 6, 4, 2, 32).cast(at::kFloat);
  const auto error = [&](const std::function<void(AttentionOptions&)>& change) {
    AttentionOptions options;
    change(options);
    return error_of([&] { attention(p.q, p.k, p.v, options); });
  };
  EXPECT_EQ(
      error([](auto& o) { o.attn_type = "imp_flash_atn"; }),
      "strobe::attention: attn_type: expected dotscale, flash_attn or imp_flash_attn, found \"imp_flash_atn\"; did "
      "you mean \"imp_flash_attn\"?");
  EXPECT_EQ(error([](auto& o) {
              o.key_lengths = int_tensor({1, 2, 3});
            }),
            "strobe::attention: key_lengths: expected q's batch size 2 in dimension 0, found [3]");
  EXPECT_EQ(error([](auto& o) {
              o.query_lengths = int_tensor({1, 2}).to(at::kLong);
            }),
            "strobe::attention: query_lengths: expected int32, found Long");
  EXPECT_EQ(error([](auto& o) { o.softmax_scale = -1.0; }),
            "strobe::attention: softmax_scale: expected a finite number > 0, found -1");
  EXPECT_EQ(error([](auto& o) { o.window_left = -2; }),
            "strobe::attention: window_left: expected -1 or more, found -2");
  EXPECT_THAT(error([](auto& o) { o.dropout_p = 1.0; }), HasSubstr("dropout_p: expected 0 <= dropout_p < 1"));
  EXPECT_THAT(error([](auto& o) {
                o.cu_seqlens_q = int_tensor({0, 4});
              }),
              HasSubstr("cu_seqlens_k: expected both cu_seqlens or neither, found one"));
  EXPECT_THAT(error([](auto& o) {
                o.dropout_p = 0.1;
                o.rng_state = int_tensor({1, 2});
              }),
              HasSubstr("rng_state: expected [2] int64 {seed, offset}, found [2] Int"));
}

TEST(Errors, ShapesAndDtypes) {
  const AttentionOptions options;
  const auto error = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return error_of([&] { attention(q, k, v, options); });
  };
  const at::Tensor q = at::randn({2, 4, 4, 32}), k = at::randn({2, 6, 2, 32});
  EXPECT_EQ(error(q, k, at::randn({2, 7, 2, 32})),
            "strobe::attention: v: expected k's size 6 in dimension 1, found [2, 7, 2, 32]");
  EXPECT_EQ(error(q, k.to(at::kBFloat16), k), "strobe::attention: k: expected q's dtype Float, found BFloat16");
  EXPECT_THAT(error(q, at::randn({2, 6, 3, 32}), at::randn({2, 6, 3, 32})),
              HasSubstr("q: expected a multiple of k's 3 heads, found 4"));
  EXPECT_THAT(error(q[0], k, k), HasSubstr("q: expected [B, N, H, D], found 3 dimensions"));
  EXPECT_THAT(error_of([&] {
                attention_qkvpacked(at::randn({2, 4, 5, 32}), 2, options);
              }),
              HasSubstr("num_heads_q: expected Hq with Hq + 2 Hk = 5 heads in qkv, found 2"));
}

TEST(Errors, TheLibrarysReasonsComeThrough) {
  AttentionOptions options;
  const at::Tensor odd = at::randn({1, 4, 2, 12}), half = at::randn({1, 4, 2, 16}).to(at::kHalf);
  EXPECT_THAT(
      error_of([&] { attention(odd, odd, odd, options); }),
      HasSubstr("attn_type \"imp_flash_attn\" cannot run here: attention_forward: head_dim: expected a multiple "
                "of 8 up to 128, or 256, got 12"));
  EXPECT_THAT(error_of([&] { attention(half, half, half, options); }),
              HasSubstr("dtype: expected float32 or bfloat16 on the CPU"));
  options.cu_seqlens_q = int_tensor({0, 3, 9});
  options.cu_seqlens_k = int_tensor({0, 3, 5});
  const at::Tensor q = at::randn({7, 2, 16});
  EXPECT_THAT(error_of([&] { attention(q, q, q, options); }),
              HasSubstr("cu_seqlens_q: expected a last value of at most"));
  options.attn_type = "dotscale";
  EXPECT_THAT(error_of([&] { attention(q, q, q, options); }),
              HasSubstr("cu_seqlens_q: expected a last value of at most"));
}

}  // namespace
}  // namespace strobe::ops
