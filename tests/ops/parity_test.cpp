// The three types are one function: dotscale in double against ATen's attention, the flash types against dotscale.
#include <ATen/Parallel.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "tests/ops/problem.h"

namespace strobe::ops {
namespace {

AttentionOptions options_of(const std::string& attn_type) {
  AttentionOptions options;
  options.attn_type = attn_type;
  options.return_lse = true;
  return options;
}

/// ATen's own, in double, on [B, H, N, D].
Results atens(const Problem& p, bool causal) {
  const at::Tensor q = leaf(p.q), k = leaf(p.k), v = leaf(p.v);
  const bool grouped = q.size(2) != k.size(2);
  const at::Tensor out = std::get<0>(at::_scaled_dot_product_attention_math(
                                         q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), std::nullopt, 0.0,
                                         causal, std::nullopt, std::nullopt, grouped))
                             .transpose(1, 2);
  const auto grads = torch::autograd::grad({out}, {q, k, v}, {p.grad_out});
  return {out.detach(), at::Tensor(), grads[0], grads[1], grads[2]};
}

TEST(Dotscale, EqualsAtensInDouble) {
  torch::manual_seed(1);
  for (const bool causal : {false, true}) {
    for (const int64_t heads_k : {4, 2, 1}) {
      const Problem p = Problem::dense(2, 17, causal ? 17 : 23, 4, heads_k, 16);
      AttentionOptions options = options_of("dotscale");
      options.causal = causal;
      options.return_lse = false;
      const Results found = run(p, options), expected = atens(p, causal);
      // Both round in double, in another order: sums of 23 terms of at most 10 in size.
      constexpr double kTolerance = 23 * 10 * 1e-15;
      EXPECT_LE(max_error(found.out, expected.out), kTolerance);
      EXPECT_LE(max_error(found.grad_q, expected.grad_q), kTolerance);
      EXPECT_LE(max_error(found.grad_k, expected.grad_k), kTolerance);
      EXPECT_LE(max_error(found.grad_v, expected.grad_v), kTolerance);
    }
  }
}

using TypeAndDtype = std::tuple<const char*, at::ScalarType>;

class Flash : public testing::TestWithParam<TypeAndDtype> {
 protected:
  void SetUp() override { torch::manual_seed(2); }

  /// The flash type against dotscale of the same dtype, both against dotscale in double.
  void expect_parity(const Problem& p, AttentionOptions options) const {
    const auto [type, dtype] = GetParam();
    options.return_lse = true;
    options.attn_type = "dotscale";
    const Results exact = run(p, options), plain = run(p.cast(dtype), options);
    options.attn_type = type;
    expect_bounded(run(p.cast(dtype), options), plain, exact);
  }
};

TEST_P(Flash, DenseShapes) {
  for (const bool causal : {false, true}) {
    for (const auto& [nq, nk] :
         {std::pair<int64_t, int64_t>{3, 5}, {40, 40}, {1, 33}, {65, 17}, {17, 65}, {130, 130}}) {
      AttentionOptions options;
      options.causal = causal;
      SCOPED_TRACE(testing::Message() << "causal " << causal << ", Nq " << nq << ", Nk " << nk);
      expect_parity(Problem::dense(2, nq, nk, 4, 2, 32), options);
    }
  }
}

TEST_P(Flash, WindowScaleAndLengths) {
  AttentionOptions options;
  options.window_left = 5;
  options.window_right = 2;
  options.softmax_scale = 0.3;
  expect_parity(Problem::dense(3, 30, 41, 2, 2, 64), options);
  options = {};
  options.causal = true;
  options.key_lengths = int_tensor({30, 0, 11});
  options.query_lengths = int_tensor({7, 30, 0});
  expect_parity(Problem::dense(3, 30, 30, 2, 1, 64), options);
}

TEST_P(Flash, Varlen) {
  AttentionOptions options;
  options.causal = true;
  options.cu_seqlens_q = int_tensor({0, 5, 5, 23, 40});
  options.cu_seqlens_k = int_tensor({0, 9, 12, 30, 33});
  expect_parity(Problem::varlen(43, 35, 4, 2, 32), options);
  options.dropout_p = 0.25;
  options.rng_state = rng_state(7, 9);
  options.max_seqlen_q = 18;
  options.max_seqlen_k = 18;
  expect_parity(Problem::varlen(40, 33, 4, 4, 32), options);
}

TEST_P(Flash, DropoutIsTheSameFunction) {
  AttentionOptions options;
  options.dropout_p = 0.3;
  options.rng_state = rng_state(-5, 1ll << 40);
  expect_parity(Problem::dense(2, 37, 50, 4, 2, 32), options);
}

TEST_P(Flash, EmptyAndHiddenRows) {
  AttentionOptions options;
  expect_parity(Problem::dense(2, 3, 0, 2, 2, 32), options);
  expect_parity(Problem::dense(2, 0, 3, 2, 2, 32), options);
  options.causal = true;  // bottom-right: the first rows see no key
  expect_parity(Problem::dense(2, 9, 4, 2, 2, 32), options);
}

INSTANTIATE_TEST_SUITE_P(All, Flash,
                         testing::Combine(testing::Values("flash_attn", "imp_flash_attn"),
                                          testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" + c10::toString(std::get<1>(info.param));
                         });

class EachType : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { torch::manual_seed(3); }
};

TEST_P(EachType, HiddenNanAndInfinityHaveNoEffect) {
  AttentionOptions options = options_of(GetParam());
  options.key_lengths = int_tensor({9, 13});
  options.query_lengths = int_tensor({6, 11});
  const Problem clean = Problem::dense(2, 11, 13, 2, 2, 32).cast(at::kFloat);
  const Results expected = run(clean, options);
  Problem poisoned = clean;
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  poisoned.q = clean.q.clone();
  poisoned.q[0].narrow(0, 6, 5).fill_(nan);
  poisoned.k = clean.k.clone();
  poisoned.k[0].narrow(0, 9, 4).fill_(inf);
  poisoned.v = clean.v.clone();
  poisoned.v[0].narrow(0, 9, 4).fill_(nan);
  poisoned.grad_out = clean.grad_out.clone();
  poisoned.grad_out[0].narrow(0, 6, 5).fill_(-inf);
  poisoned.grad_lse = clean.grad_lse.clone();
  poisoned.grad_lse[0].narrow(1, 6, 5).fill_(nan);
  expect_equal(run(poisoned, options), expected);
}

TEST_P(EachType, VisibleNanReachesEverything) {
  const AttentionOptions options = options_of(GetParam());
  Problem p = Problem::dense(1, 5, 6, 1, 1, 32).cast(at::kFloat);
  p.k[0][3][0][7] = std::numeric_limits<double>::quiet_NaN();
  const Results found = run(p, options);
  for (const at::Tensor& t : {found.out, found.lse, found.grad_q, found.grad_v}) {
    EXPECT_TRUE(t.isnan().all().item<bool>());
  }
}

TEST_P(EachType, NanInTheFutureStaysThere) {
  AttentionOptions options = options_of(GetParam());
  options.causal = true;
  constexpr int64_t kRows = 50, kBad = 20;
  const Problem clean = Problem::dense(1, kRows, kRows, 2, 1, 32).cast(at::kFloat);
  const auto poisoned = [](const at::Tensor& t) {
    const at::Tensor copy = t.clone();
    copy.select(1, kBad).fill_(std::numeric_limits<double>::quiet_NaN());
    return copy;
  };
  const auto has_nan = [](const at::Tensor& t) { return t.isnan().any().item<bool>(); };
  const auto before = [](const at::Tensor& t) { return t.narrow(1, 0, kBad); };
  const auto after = [](const at::Tensor& t) { return t.narrow(1, kBad + 1, kRows - kBad - 1); };

  Problem p = clean;  // a key and its value: rows before them do not notice
  p.k = poisoned(clean.k);
  p.v = poisoned(clean.v);
  Results found = run(p, options);
  EXPECT_FALSE(has_nan(before(found.out)));
  EXPECT_FALSE(has_nan(before(found.grad_q)));
  EXPECT_TRUE(after(found.out).isnan().all().item<bool>());

  p = clean;  // a query and its gradient: keys after them do not notice
  p.q = poisoned(clean.q);
  p.grad_out = poisoned(clean.grad_out);
  found = run(p, options);
  for (const at::Tensor& t : {found.grad_k, found.grad_v}) {
    EXPECT_FALSE(has_nan(after(t)));
    EXPECT_TRUE(before(t).isnan().all().item<bool>());
  }
  EXPECT_FALSE(has_nan(after(found.out)));
}

TEST_P(EachType, LseIsEmptyUnlessAskedFor) {
  const Problem p = Problem::dense(2, 5, 6, 2, 1, 32).cast(at::kFloat);
  AttentionOptions options = options_of(GetParam());
  const auto [out, lse] = attention(p.q, p.k, p.v, options);
  EXPECT_EQ(lse.sizes(), at::IntArrayRef({2, 2, 5}));
  EXPECT_EQ(lse.scalar_type(), at::kFloat);
  options.return_lse = false;
  EXPECT_EQ(std::get<1>(attention(p.q, p.k, p.v, options)).numel(), 0);
}

TEST_P(Flash, ThreadsDoNotMatter) {
  const auto [type, dtype] = GetParam();
  AttentionOptions options = options_of(type);
  options.causal = true;
  options.dropout_p = 0.1;
  options.rng_state = rng_state(1, 2);
  const Problem p = Problem::dense(2, 70, 70, 3, 3, 32).cast(dtype);
  const int threads = at::get_num_threads();
  const Results many = run(p, options);
  at::set_num_threads(1);
  const Results one = run(p, options);
  at::set_num_threads(threads);
  expect_equal(many, one);
}

TEST_P(EachType, AnyStrides) {
  AttentionOptions options = options_of(GetParam());
  options.causal = true;
  const Problem p = Problem::dense(2, 12, 12, 3, 3, 16).cast(at::kFloat);
  const Results expected = run(p, options);
  const auto heads_first = [](const at::Tensor& x) { return x.transpose(1, 2).contiguous().transpose(1, 2); };
  const auto dim_first = [](const at::Tensor& x) { return x.transpose(1, 3).contiguous().transpose(1, 3); };
  const auto unaligned = [](const at::Tensor& x) {  // rows of 17 elements, one past a 16-byte boundary
    return at::cat({x.narrow(3, 0, 1), x}, 3).narrow(3, 1, x.size(3));
  };
  for (const auto& layout : {std::function<at::Tensor(const at::Tensor&)>(heads_first), {dim_first}, {unaligned}}) {
    const Problem other{layout(p.q), layout(p.k), layout(p.v), layout(p.grad_out), p.grad_lse};
    expect_equal(run(other, options), expected);
  }
  Problem broadcast = p;
  broadcast.grad_out = at::randn({1, 1, 1, 16}).expand_as(p.grad_out);
  Problem copied = p;
  copied.grad_out = broadcast.grad_out.contiguous();
  expect_equal(run(broadcast, options), run(copied, options));
}

INSTANTIATE_TEST_SUITE_P(All, EachType, testing::Values("dotscale", "flash_attn", "imp_flash_attn"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace strobe::ops
