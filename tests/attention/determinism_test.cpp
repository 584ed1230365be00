// What must be equal bit by bit: repeats, any number of threads, any company in the batch, varlen and dense.
#include <gtest/gtest.h>

#include <sstream>

#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

AttentionCase dense_case(DType dtype) {
  AttentionCase c{.batch = 3, .seqlen_q = 150, .seqlen_k = 133, .num_heads_q = 4, .num_heads_k = 2, .head_dim = 32};
  c.dtype = dtype;
  c.causal = true;
  c.key_lengths = {133, 70, 100};
  c.query_lengths = {150, 149, 20};
  c.lse_gradient = true;
  return c;
}

AttentionCase varlen_case(DType dtype) {
  AttentionCase c{.batch = 5, .seqlen_q = 150, .seqlen_k = 150, .num_heads_q = 4, .num_heads_k = 2, .head_dim = 32};
  c.dtype = dtype;
  c.lengths_q = {40, 0, 150, 65, 3};
  c.lengths_k = {40, 12, 133, 0, 70};
  c.spare_tokens = 5;
  c.lse_gradient = false;
  return c;
}

/// The rows of sequence b in the results of a problem, in the order of a problem of that sequence alone.
Results sequence_of(const Problem& problem, const Results& all, int64_t b) {
  const AttentionCase& c = problem.shape();
  const auto lengths = [&](const std::vector<int32_t>& varlen, int64_t dense) {
    int64_t begin = 0;
    for (int64_t s = 0; s < b; ++s) begin += varlen.empty() ? dense : varlen[s];
    return std::pair(begin, varlen.empty() ? dense : varlen[b]);
  };
  const auto rows = [](const std::vector<double>& values, std::pair<int64_t, int64_t> range, int64_t row_size) {
    const auto begin = values.begin() + range.first * row_size;
    return std::vector<double>(begin, begin + range.second * row_size);
  };
  const auto q = lengths(c.lengths_q, c.seqlen_q), k = lengths(c.lengths_k, c.seqlen_k);
  Results one{rows(all.out, q, c.num_heads_q * c.head_dim),
              {},
              rows(all.grad_q, q, c.num_heads_q * c.head_dim),
              rows(all.grad_k, k, c.num_heads_k * c.head_dim),
              rows(all.grad_v, k, c.num_heads_k * c.head_dim)};
  for (int64_t h = 0; h < c.num_heads_q; ++h) {
    const int64_t begin = c.is_varlen() ? h * problem.q().rows + q.first : (b * c.num_heads_q + h) * c.seqlen_q;
    one.softmax_lse.insert(one.softmax_lse.end(), all.softmax_lse.begin() + begin,
                           all.softmax_lse.begin() + begin + q.second);
  }
  return one;
}

/// The problem of sequence b alone. In varlen the bounds of the lengths stay: a kernel may be chosen by them.
Problem alone(const Problem& problem, int64_t b) {
  AttentionCase c = problem.shape();
  const auto first = [&](const std::vector<int32_t>& lengths) {
    int64_t sum = 0;
    for (int64_t s = 0; s < b && !lengths.empty(); ++s) sum += lengths[s];
    return sum;
  };
  const int64_t batch = c.is_varlen() ? 0 : b;
  const int64_t first_q = first(c.lengths_q), first_k = first(c.lengths_k);
  for (auto* lengths : {&c.lengths_q, &c.lengths_k, &c.key_lengths, &c.query_lengths}) {
    if (!lengths->empty()) *lengths = {(*lengths)[b]};
  }
  c.batch = 1;
  c.spare_tokens = 0;
  Problem one(c);
  const auto copy = [&](const Tensor& from, const Tensor& to, int64_t first_row) {
    for (int64_t i = 0; i < to.rows; ++i) {
      for (int64_t h = 0; h < to.heads; ++h) {
        for (int64_t d = 0; d < to.head_dim; ++d) to.set(0, i, h, d, from.get(batch, first_row + i, h, d));
      }
    }
  };
  copy(problem.q(), one.q(), first_q);
  copy(problem.grad_out(), one.grad_out(), first_q);
  copy(problem.k(), one.k(), first_k);
  copy(problem.v(), one.v(), first_k);
  return one;
}

TEST(Determinism, RepeatsAndThreads) {
  for (const DType dtype : kDTypes) {
    if (kEmulated && dtype != DType::kFloat16) continue;
    for (AttentionCase c : {dense_case(dtype), varlen_case(dtype)}) {
      c.dropout_p = 0.1;
      const Problem problem(c);
      for_each_deterministic_kernel(problem.shape(), [&](const KernelSetting& kernel) {
        const Results first = problem.run(kernel);
        for (int repeat = 0; repeat < (kEmulated ? 1 : 5); ++repeat)
          EXPECT_TRUE(bitwise_equal(first, problem.run(kernel))) << kernel.label;
        if (kEmulated) return;
        for (const int num_threads : {2, 3, 5}) {
          c.num_threads = num_threads;
          EXPECT_TRUE(bitwise_equal(first, Problem(c).run(kernel))) << kernel.label << ' ' << c;
        }
      });
    }
  }
}

/// A long one-head problem: the only parallelism is between blocks of rows.
TEST(Determinism, ThreadsOnOneHead) {
  if (kEmulated) GTEST_SKIP() << "repeats of long sequences";
  for (const DType dtype : kDTypes) {
    AttentionCase c{.seqlen_q = 700, .seqlen_k = 650};
    c.dtype = dtype;
    const Problem problem(c);
    for_each_deterministic_kernel(problem.shape(), [&](const KernelSetting& kernel) {
      const Results first = problem.run(kernel);
      for (const int num_threads : {2, 3, 5}) {
        c.num_threads = num_threads;
        EXPECT_TRUE(bitwise_equal(first, Problem(c).run(kernel))) << kernel.label << ' ' << c;
      }
    });
  }
}

/// No dropout here: its mask depends on the place in the batch. No gradient of the LSE: `alone` draws another one.
TEST(Determinism, AnItemAloneIsTheItemInTheBatch) {
  for (const DType dtype : kDTypes) {
    if (kEmulated && dtype != DType::kFloat16) continue;
    for (AttentionCase c : {dense_case(dtype), varlen_case(dtype)}) {
      c.lse_gradient = false;
      const Problem problem(c);
      for_each_deterministic_kernel(problem.shape(), [&](const KernelSetting& kernel) {
        const Results all = problem.run(kernel);
        for (int64_t b = 0; b < c.batch; ++b) {
          EXPECT_TRUE(bitwise_equal(sequence_of(problem, all, b), alone(problem, b).run(kernel)))
              << kernel.label << ", item " << b << ": " << c;
        }
      });
    }
  }
}

TEST(Determinism, VarlenIsDenseWithDropout) {
  for (const DType dtype : kDTypes) {
    if (kEmulated && dtype != DType::kFloat16) continue;
    AttentionCase dense{.batch = 3, .seqlen_q = 70, .seqlen_k = 90, .num_heads_q = 2, .num_heads_k = 1, .head_dim = 64};
    dense.dtype = dtype;
    dense.dropout_p = 0.3;
    dense.window_left = 40;
    AttentionCase varlen = dense;
    varlen.lengths_q = {70, 70, 70};
    varlen.lengths_k = {90, 90, 90};
    const Problem dense_problem(dense), varlen_problem(varlen);  // the same numbers: the tensors have the same order
    for_each_deterministic_kernel(dense, [&](const KernelSetting& kernel) {
      const Results a = dense_problem.run(kernel), b = varlen_problem.run(kernel);
      for (int64_t s = 0; s < 3; ++s) {
        EXPECT_TRUE(bitwise_equal(sequence_of(dense_problem, a, s), sequence_of(varlen_problem, b, s))) << kernel.label;
      }
    });
  }
}

/// Strides change where numbers are, not what they are.
TEST(Determinism, LayoutsAgree) {
  for (const DType dtype : kDTypes) {
    if (kEmulated && dtype != DType::kFloat16) continue;
    AttentionCase c{.batch = 2, .seqlen_q = 77, .seqlen_k = 77, .num_heads_q = 4, .num_heads_k = 2, .head_dim = 24};
    c.dtype = dtype;
    c.causal = true;
    std::vector<Problem> problems;
    for (const Layout layout : {Layout::kBNHD, Layout::kBHND, Layout::kPacked, Layout::kPadded}) {
      c.layout = layout;
      problems.emplace_back(c);
    }
    for_each_deterministic_kernel(c, [&](const KernelSetting& kernel) {
      const Results first = problems[0].run(kernel);
      for (const Problem& problem : problems) {
        EXPECT_TRUE(bitwise_equal(first, problem.run(kernel))) << kernel.label << ' ' << problem.shape();
      }
    });
  }
}

}  // namespace
}  // namespace strobe::testing
