// Positions and embeddings against their formulas.
#include "nn/embedding.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>

#include "strobe/types.h"

namespace strobe::nn {
namespace {

TEST(Positions, AreInterleavedSinesAndCosines) {
  const at::Tensor table = sinusoidal_positions(50, 8);
  ASSERT_EQ(table.sizes(), at::IntArrayRef({50, 8}));
  for (int64_t p = 0; p < 50; ++p) {
    for (int64_t i = 0; i < 8; ++i) {
      const double angle = p / std::pow(10000.0, double(i - i % 2) / 8.0);
      EXPECT_EQ(table[p][i].item<float>(), static_cast<float>(i % 2 == 0 ? std::sin(angle) : std::cos(angle)))
          << p << ", " << i;
    }
  }
  EXPECT_THROW(sinusoidal_positions(3, 7), Error);
  EXPECT_TRUE(at::equal(sinusoidal_positions(50, 8, at::kDouble).to(at::kFloat), table));
  EXPECT_FALSE(at::equal(sinusoidal_positions(50, 8, at::kDouble), table.to(at::kDouble)));
}

TEST(TokenEmbedding, BorrowsAWeightWithoutOwningIt) {
  const c10::NoGradGuard no_grad;
  TokenEmbedding owner(20, 8, 0.0);
  TokenEmbedding borrower(owner->weight(), 0.0);
  EXPECT_EQ(owner->parameters().size(), 1u);
  EXPECT_TRUE(borrower->parameters().empty());
  const at::Tensor ids = at::randint(20, {2, 5}, at::kLong);
  EXPECT_TRUE(at::equal(borrower->forward(ids), owner->forward(ids)));
  owner->to(at::kDouble);
  EXPECT_EQ(borrower->forward(ids).scalar_type(), at::kDouble);
  EXPECT_TRUE(at::equal(borrower->forward(ids), owner->forward(ids)));
}

TEST(TokenEmbedding, ScalesAndAddsPositions) {
  const c10::NoGradGuard no_grad;
  torch::manual_seed(1);
  TokenEmbedding embedding(20, 16, 0.1);
  embedding->eval();
  const at::Tensor ids = at::randint(20, {2, 300}, at::dtype(at::kLong));  // beyond the first table of positions
  const at::Tensor weight = embedding->named_parameters()["tokens.weight"];
  const at::Tensor expected = weight.index({ids}) * 4.0 + sinusoidal_positions(300, 16);
  const at::Tensor found = embedding->forward(ids);
  EXPECT_LE((found - expected).abs().max().item<double>(), 4 * 6e-8 * 2);
  for (const int64_t position : {0, 17, 299, 1000}) {
    const at::Tensor step = embedding->step(ids.select(1, std::min<int64_t>(position, 299)), position);
    if (position < 300) {
      EXPECT_TRUE(at::equal(step, found.select(1, position)));
    } else {
      EXPECT_TRUE(at::equal(
          step, at::add(sinusoidal_positions(position + 1, 16)[position], weight.index({ids.select(1, 299)}), 4.0)));
    }
  }
}

TEST(TokenEmbedding, PackedTokensHaveTheirOwnPositions) {
  const c10::NoGradGuard no_grad;
  TokenEmbedding embedding(20, 16, 0.0);
  const at::Tensor ids = at::randint(20, {2, 300}, at::dtype(at::kLong));
  const at::Tensor padded = embedding->forward(ids);
  const Sequences sequences{.cu_seqlens = at::tensor({0, 300, 307}, at::kInt),
                            .positions = at::cat({at::arange(300), at::arange(7)}),
                            .longest = 300};
  const at::Tensor packed = embedding->forward(at::cat({ids[0], ids[1].narrow(0, 0, 7)}), sequences);
  EXPECT_TRUE(at::equal(packed, at::cat({padded[0], padded[1].narrow(0, 0, 7)})));
}

TEST(TokenEmbedding, DropsInTrainingOnly) {
  const c10::NoGradGuard no_grad;
  TokenEmbedding embedding(20, 16, 0.5);
  const at::Tensor ids = at::full({4, 50}, 5, at::dtype(at::kLong));
  const double dropped = embedding->forward(ids).eq(0).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(dropped, 0.5, 5 * 0.5 / std::sqrt(4 * 50 * 16));  // five standard deviations
  embedding->eval();
  EXPECT_EQ(embedding->forward(ids).eq(0).sum().item<int64_t>(), 0);
}

}  // namespace
}  // namespace strobe::nn
