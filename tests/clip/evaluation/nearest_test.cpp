#include "clip/evaluation/nearest.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "strobe/types.h"
#include "tests/clip/evaluation/folder_test.h"
#include "tests/message_of.h"
#include "train/device.h"

namespace strobe::clip {
namespace {

at::Tensor random(int64_t rows, int64_t dim) { return at::randn({rows, dim}, at::kFloat); }

/// All inner products in fp64, rounded, sorted stably.
std::vector<int64_t> brute_force(const at::Tensor& query, const at::Tensor& candidates, int64_t k) {
  const at::Tensor scores = at::matmul(candidates.to(at::kDouble), query.to(at::kDouble)).to(at::kFloat);
  std::vector<int64_t> order(static_cast<std::size_t>(candidates.size(0)));
  std::iota(order.begin(), order.end(), 0);
  const float* score = scores.const_data_ptr<float>();
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return score[a] > score[b]; });
  order.resize(static_cast<std::size_t>(std::min<int64_t>(k, candidates.size(0))));
  return order;
}

void expect_brute_force(const at::Tensor& queries, const at::Tensor& candidates, int64_t k, int64_t block) {
  const Neighbours found = NearestNeighbours(candidates, {k, block}).search(queries);
  const int64_t width = std::min(k, candidates.size(0));
  ASSERT_EQ(found.indices.sizes(), (std::vector<int64_t>{queries.size(0), width}));
  for (int64_t i = 0; i < queries.size(0); ++i) {
    const int64_t* row = found.indices.const_data_ptr<int64_t>() + i * width;
    EXPECT_EQ(std::vector<int64_t>(row, row + width), brute_force(queries[i], candidates, k)) << "query " << i;
  }
}

class Nearest : public ::testing::Test {
 protected:
  Nearest() { train::seed_generators(at::kCPU, 5); }
};

TEST_F(Nearest, EqualsBruteForceForAnyBlock) {
  const at::Tensor queries = random(20, 33), candidates = random(3000, 33);
  for (const int64_t block : {1, 100, 1024, 32768}) expect_brute_force(queries, candidates, 10, block);
  expect_brute_force(random(1500, 8), random(40, 8), 3, 7);  // more queries than a block has
}

TEST_F(Nearest, EqualScoresStayInOrder) {
  at::Tensor candidates = random(10, 16).repeat({30, 1});  // each stands 30 times
  expect_brute_force(random(5, 16), candidates, 45, 64);
  expect_brute_force(random(3, 16), at::full({700, 16}, 0.25), 10, 100);
  const Neighbours none = NearestNeighbours(random(50, 4), {5, 8}).search(at::zeros({1, 4}, at::kFloat));
  EXPECT_TRUE(at::equal(none.indices[0], at::tensor({0, 1, 2, 3, 4}, at::kLong)));
}

TEST_F(Nearest, DecidesBetweenScoresThatBlocksOfProductsCannotTellApart) {
  // Large terms that cancel leave differences far below the rounding of the products' sums.
  at::Tensor candidates = random(400, 64) * 1e-5;
  candidates.select(1, 0).fill_(1000.0);
  candidates.select(1, 1).fill_(1000.0);
  at::Tensor query = random(1, 64);
  query[0][0] = 1.0;
  query[0][1] = -1.0;
  expect_brute_force(query, candidates, 10, 128);
}

TEST_F(Nearest, FewerCandidatesThanAskedFor) { expect_brute_force(random(2, 4), random(3, 4), 10, 32); }

TEST_F(Nearest, RefusesWhatItCannotCompare) {
  const at::Tensor good = random(4, 8);
  const NearestNeighbours neighbours(good, {});
  const auto message = [](auto action) { return message_of<Error>(action); };
  EXPECT_NE(message([&] { neighbours.search(random(2, 7)); }).find("expected dimension 8"), std::string::npos);
  EXPECT_NE(message([&] { neighbours.search(good / 0.0); }).find("finite"), std::string::npos);
  EXPECT_NE(message([&] { neighbours.search(good * 1e38); }).find("overflow"), std::string::npos);
  EXPECT_NE(message([&] { NearestNeighbours(random(0, 8), {}); }).find("found none"), std::string::npos);
  EXPECT_NE(message([&] { NearestNeighbours(good.to(at::kDouble), {}); }).find("fp32"), std::string::npos);
  EXPECT_NE(message([&] { NearestNeighbours(good, {0}); }).find("positive"), std::string::npos);
}

}  // namespace
}  // namespace strobe::clip
