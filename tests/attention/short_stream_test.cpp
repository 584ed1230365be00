// The shapes of the streamed short backward (sm_90), whose blocks go from head to head without a pause.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

struct Shape {
  int64_t seqlen_q, seqlen_k, head_dim;
};

/// With and without a warp of its own for dQ; with a key behind those that warps own, with a warp of few keys, with
/// rows and columns that a tile has too many.
TEST(ShortStream, Shapes) {
  const std::vector<Shape> shapes =
      kEmulated ? std::vector<Shape>{{145, 177, 64}, {145, 257, 80}}
                : std::vector<Shape>{{197, 197, 64}, {257, 257, 64}, {257, 257, 80}, {197, 197, 80}, {145, 177, 40},
                                     {193, 224, 64}, {224, 225, 64}, {256, 256, 80}, {300, 240, 72}, {129, 257, 48}};
  for (const DType dtype : kDTypes) {
    if (kEmulated && dtype != DType::kBFloat16) continue;
    AttentionCase c{.batch = 2, .num_heads_q = 3, .num_heads_k = 3, .dtype = dtype, .layout = Layout::kPacked};
    for (const Shape& shape : shapes) {
      c.seqlen_q = shape.seqlen_q, c.seqlen_k = shape.seqlen_k, c.head_dim = shape.head_dim;
      check_case(c);
      c.lse_gradient = !c.lse_gradient;
      c.layout = c.layout == Layout::kPacked ? Layout::kBHND : Layout::kPacked;
    }
  }
}

/// What is in a slot of shared memory from the head before does not matter.
TEST(ShortStream, NanStaysInItsHead) {
  const int64_t heads = kEmulated ? 3 : 150;  // more than a card has blocks at a time
  for (const int64_t seqlen_k : {177, 257}) {
    AttentionCase c{.batch = 2, .seqlen_q = 145, .seqlen_k = seqlen_k, .num_heads_q = heads, .num_heads_k = heads};
    c.dtype = DType::kBFloat16;
    const Problem clean(c), dirty(c);
    for (const Tensor* tensor : {&dirty.q(), &dirty.k(), &dirty.v(), &dirty.grad_out()}) {
      tensor->set_row(0, 140, std::numeric_limits<double>::quiet_NaN());
    }
    for_each_deterministic_kernel(c, [&](const KernelSetting& kernel) {
      const Results a = clean.run(kernel), b = dirty.run(kernel);
      const auto second_equal = [](const std::vector<double>& x, const std::vector<double>& y) {
        return std::equal(x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end(),
                          y.begin() + static_cast<std::ptrdiff_t>(y.size() / 2));
      };
      EXPECT_TRUE(second_equal(a.grad_q, b.grad_q)) << kernel.label;
      EXPECT_TRUE(second_equal(a.grad_k, b.grad_k)) << kernel.label;
      EXPECT_TRUE(second_equal(a.grad_v, b.grad_v)) << kernel.label;
    });
  }
}

}  // namespace
}  // namespace strobe::testing
