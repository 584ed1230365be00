// Fused dropout: its distribution, its gradients, its independence of threads, and what it must let through.
#include "nn/dropout.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/where.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace strobe::nn {
namespace {

void seed(uint64_t value) { at::manual_seed(value); }

TEST(Dropout, KeepsTheExpectation) {
  const int64_t n = 1 << 20;
  for (const double p : {0.1, 0.5}) {
    seed(1);
    const at::Tensor out = dropout(at::ones({n}), p, true);
    const double kept = out.ne(0).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(kept, 1 - p,
                5 * std::sqrt(p * (1 - p) / n) + 0x1p-17);  // five standard deviations and the rounding of p
    const double scale = 65536.0 / std::round((1 - p) * 65536);
    EXPECT_TRUE(at::equal(out, at::where(out.ne(0), static_cast<float>(scale), 0.0f)));
    // Neighbours, and elements a block apart, are independent.
    for (const int64_t apart : {1, 16, 128, 512}) {
      const at::Tensor kept_both = out.narrow(0, 0, n - apart).mul(out.narrow(0, apart, n - apart)).ne(0);
      const double both = (1 - p) * (1 - p);
      EXPECT_NEAR(kept_both.to(at::kDouble).mean().item<double>(), both, 6 * std::sqrt(both * (1 - both) / n)) << apart;
    }
  }
}

TEST(Dropout, IsTheIdentityOutsideTraining) {
  const at::Tensor x = at::randn({7, 5}), residual = at::randn({7, 5});
  for (const auto& [p, training] : {std::pair(0.5, false), std::pair(0.0, true)}) {
    EXPECT_TRUE(at::equal(dropout(x, p, training), x));
    EXPECT_TRUE(at::equal(add_dropout(residual, x, p, training), residual.add(x)));
    EXPECT_TRUE(at::equal(relu_dropout(x, p, training), x.relu()));
  }
}

TEST(Dropout, DrawsAnewAndRepeatsFromTheSeed) {
  const at::Tensor x = at::ones({1000});
  seed(2);
  const at::Tensor first = dropout(x, 0.5, true), second = dropout(x, 0.5, true);
  EXPECT_FALSE(at::equal(first, second));
  seed(2);
  EXPECT_TRUE(at::equal(dropout(x, 0.5, true), first));
}

TEST(Dropout, DoesNotDependOnThreads) {
  const int64_t n = (1 << 18) + 77;
  const at::Tensor x = at::randn({n});
  const int threads = at::get_num_threads();
  seed(3);
  const at::Tensor many = dropout(x, 0.3, true);
  at::set_num_threads(1);
  seed(3);
  const at::Tensor one = dropout(x, 0.3, true);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(many, one));
}

/// The factors of the mask that the next call draws.
at::Tensor next_mask(at::IntArrayRef shape, double p) { return dropout(at::ones(shape), p, true); }

TEST(Dropout, GradientsGoThroughTheSameMask) {
  const at::Tensor weights = at::randn({9, 41});
  at::Tensor x = at::randn({9, 41}).requires_grad_();
  at::Tensor residual = at::randn({9, 41}).requires_grad_();
  seed(4);
  const at::Tensor mask = next_mask({9, 41}, 0.4);
  ASSERT_TRUE(mask.eq(0).any().item<bool>());

  seed(4);
  at::Tensor out = dropout(x, 0.4, true);
  EXPECT_TRUE(at::equal(out, x.mul(mask)));
  out.mul(weights).sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), weights.mul(mask)));

  x.mutable_grad() = at::Tensor();
  seed(4);
  out = add_dropout(residual, x, 0.4, true);
  EXPECT_TRUE(at::equal(out, residual.add(x.mul(mask))));
  out.mul(weights).sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), weights.mul(mask)));
  EXPECT_TRUE(at::equal(residual.grad(), weights));

  x.mutable_grad() = at::Tensor();
  seed(4);
  out = relu_dropout(x, 0.4, true);
  EXPECT_TRUE(at::equal(out, x.relu().mul(mask)));
  out.mul(weights).sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), weights.mul(mask).mul(x.gt(0))));
}

TEST(Dropout, TakesAnyStridesAndNoElements) {
  const at::Tensor x = at::randn({31, 17}).t();
  seed(5);
  const at::Tensor expected = dropout(x.contiguous(), 0.5, true);
  seed(5);
  EXPECT_TRUE(at::equal(dropout(x, 0.5, true), expected));
  EXPECT_EQ(dropout(at::ones({0, 4}), 0.5, true).numel(), 0);
  EXPECT_EQ(add_dropout(at::ones({2, 1, 5}), at::ones({3, 1}), 0.5, true).sizes(), at::IntArrayRef({2, 3, 5}));
}

TEST(Dropout, ShowsWhatIsKeptAndHidesWhatIsDropped) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  seed(6);
  const at::Tensor mask = next_mask({1000}, 0.5);
  const at::Tensor bad = at::full({1000}, nan);
  for (const bool relu : {false, true}) {
    seed(6);
    const at::Tensor out = relu ? relu_dropout(bad, 0.5, true) : dropout(bad, 0.5, true);
    EXPECT_TRUE(at::equal(out.isnan(), mask.ne(0))) << relu;
    EXPECT_TRUE(at::equal(out.eq(0), mask.eq(0))) << relu;
  }
}

TEST(Dropout, OtherDtypesTakeAtensPath) {
  seed(7);
  const at::Tensor out = dropout(at::ones({4000}, at::kBFloat16), 0.25, true);
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_NEAR(out.ne(0).to(at::kDouble).mean().item<double>(), 0.75, 5 * std::sqrt(0.25 * 0.75 / 4000));
}

}  // namespace
}  // namespace strobe::nn
