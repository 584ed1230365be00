// Forward and backward of every kernel against the oracle over the cases of the interface.
#include <gtest/gtest.h>

#include "tests/attention/attention_case.h"
#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16};

/// Some of everything, small enough to look at when it fails.
TEST(Lattice, Basic) {
  for (const DType dtype : kDTypes) {
    check_case(
        {.batch = 2, .seqlen_q = 5, .seqlen_k = 7, .num_heads_q = 2, .num_heads_k = 2, .head_dim = 16, .dtype = dtype});
    check_case({.batch = 2, .seqlen_q = 64, .seqlen_k = 64, .num_heads_q = 2, .num_heads_k = 2, .dtype = dtype});
    check_case({.seqlen_q = 100, .seqlen_k = 130, .num_heads_q = 4, .num_heads_k = 2, .dtype = dtype, .causal = true});
    check_case({.seqlen_q = 130,
                .seqlen_k = 100,
                .num_heads_q = 2,
                .num_heads_k = 1,
                .dtype = dtype,
                .causal = true,
                .layout = Layout::kPacked,
                .dropout_p = 0.1,
                .lse_gradient = true});
  }
}

TEST(Lattice, HeadDims) {
  for (int64_t head_dim = 8; head_dim <= 136; head_dim += 8) {
    AttentionCase c{.seqlen_q = 67, .seqlen_k = 93, .num_heads_q = 2, .num_heads_k = 1};
    c.head_dim = head_dim == 136 ? 256 : head_dim;
    for (const DType dtype : kDTypes) {
      c.dtype = dtype;
      c.causal = !c.causal;
      check_case(c);
    }
  }
}

TEST(Lattice, Lengths) {
  for (int64_t n = 1; n <= 640; ++n) {
    AttentionCase c{.seqlen_q = n, .seqlen_k = n, .head_dim = 16};
    c.dtype = kDTypes[(n / 64 + n) % 2];
    c.causal = n % 3 == 0;
    check_case(c);
  }
}

TEST(Lattice, UnequalLengths) {
  const int64_t lengths[] = {0, 1, 2, 15, 17, 63, 64, 65, 127, 129, 200};
  for (const int64_t nq : lengths) {
    for (const int64_t nk : lengths) {
      AttentionCase c{.seqlen_q = nq, .seqlen_k = nk, .num_heads_q = 2, .num_heads_k = 2, .head_dim = 32};
      c.dtype = kDTypes[(nq + nk) % 2];
      check_case(c);
      c.causal = true;
      c.dtype = kDTypes[(nq + nk + 1) % 2];
      check_case(c);
    }
  }
}

TEST(Lattice, GroupedHeads) {
  for (const DType dtype : kDTypes) {
    for (const int64_t heads_k : {1, 2, 3, 6}) {
      check_case({.batch = 2,
                  .seqlen_q = 70,
                  .seqlen_k = 50,
                  .num_heads_q = 6,
                  .num_heads_k = heads_k,
                  .head_dim = 24,
                  .dtype = dtype,
                  .lse_gradient = true});
    }
  }
}

TEST(Lattice, Windows) {
  const int64_t widths[] = {-1, 0, 1, 10, 64, 1000};
  for (const int64_t left : widths) {
    for (const int64_t right : widths) {
      AttentionCase c{.seqlen_q = 150, .seqlen_k = 170, .num_heads_q = 2, .num_heads_k = 1, .head_dim = 16};
      c.window_left = left;
      c.window_right = right;
      c.causal = (left + right) % 4 == 0;
      c.dtype = kDTypes[(left + 2 * right + 3) % 2];
      check_case(c);
      std::swap(c.seqlen_q, c.seqlen_k);
      check_case(c);
    }
  }
}

TEST(Lattice, KeyAndQueryLengths) {
  for (const DType dtype : kDTypes) {
    for (const bool causal : {false, true}) {
      AttentionCase c{.batch = 6, .seqlen_q = 90, .seqlen_k = 75, .num_heads_q = 2, .num_heads_k = 1, .head_dim = 32};
      c.dtype = dtype;
      c.causal = causal;
      c.key_lengths = {75, 0, 1, 64, -3, 1000};
      check_case(c);
      c.query_lengths = {0, 90, 33, 1, 64, 70};
      c.lse_gradient = true;
      check_case(c);
      c.key_lengths = {};
      c.window_left = 20;
      check_case(c);
    }
  }
}

TEST(Lattice, Varlen) {
  for (const DType dtype : kDTypes) {
    for (const Layout layout : {Layout::kBNHD, Layout::kPacked, Layout::kBHND}) {
      AttentionCase c{.batch = 5, .seqlen_q = 80, .seqlen_k = 80, .num_heads_q = 2, .num_heads_k = 1, .head_dim = 32};
      c.dtype = dtype;
      c.layout = layout;
      c.lengths_q = {17, 0, 64, 80, 1};
      c.lengths_k = {17, 5, 0, 79, 40};
      c.spare_tokens = 3;
      check_case(c);
      c.causal = true;
      c.dropout_p = 0.2;
      check_case(c);
    }
  }
}

TEST(Lattice, Layouts) {
  for (const DType dtype : kDTypes) {
    for (const Layout layout : {Layout::kBHND, Layout::kPacked, Layout::kPadded}) {
      for (const int64_t nk : {70, 45}) {
        check_case({.batch = 2,
                    .seqlen_q = 70,
                    .seqlen_k = nk,
                    .num_heads_q = 4,
                    .num_heads_k = 2,
                    .head_dim = 40,
                    .dtype = dtype,
                    .causal = nk == 70,
                    .layout = layout,
                    .lse_gradient = true});
      }
    }
  }
}

}  // namespace
}  // namespace strobe::testing
