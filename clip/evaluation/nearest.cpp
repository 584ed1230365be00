#include "clip/evaluation/nearest.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

constexpr int64_t kQueriesPerBlock = 1024;
constexpr int64_t kScanStep = 64;  // products looked at together, by vector instructions

at::Tensor checked(const at::Tensor& features, const char* what) {
  if (features.dim() != 2 || features.scalar_type() != at::kFloat || !features.is_cpu()) {
    throw Error(std::string("nearest neighbours: ") + what + ": expected fp32 [rows, dim] on the CPU");
  }
  if (!at::isfinite(features).all().item<bool>()) {
    throw Error(std::string("nearest neighbours: ") + what + ": expected finite numbers");
  }
  return features.contiguous();
}

struct Candidate {
  float score;
  int64_t index;
};

bool is_better(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.index < b.index);
}

/// What one query may still have among its k best: everything that is not further below the k-th product than the
/// products can be wrong.
class Pool {
 public:
  Pool(int64_t k, float uncertainty) : k_(static_cast<std::size_t>(k)), uncertainty_(uncertainty) {}

  void scan(const float* products, int64_t count, int64_t first_index) {
    for (int64_t begin = 0; begin < count; begin += kScanStep) {
      const int64_t end = std::min(begin + kScanStep, count);
      int hits = 0;
      for (int64_t i = begin; i < end; ++i) hits += products[i] >= threshold_;
      if (hits == 0) continue;
      for (int64_t i = begin; i < end; ++i) {
        if (products[i] >= threshold_) candidates_.push_back({products[i], first_index + i});
      }
      if (candidates_.size() >= limit_) prune();
    }
  }

  /// The k best by exact products.
  template <typename Exact>
  std::vector<Candidate> best(const Exact& exact) {
    if (candidates_.size() > k_) prune();
    for (Candidate& candidate : candidates_) candidate.score = exact(candidate.index);
    const auto middle = candidates_.begin() + static_cast<std::ptrdiff_t>(std::min(k_, candidates_.size()));
    std::partial_sort(candidates_.begin(), middle, candidates_.end(), is_better);
    candidates_.erase(middle, candidates_.end());
    return std::move(candidates_);
  }

 private:
  void prune() {
    const auto kth = candidates_.begin() + static_cast<std::ptrdiff_t>(k_) - 1;
    std::nth_element(candidates_.begin(), kth, candidates_.end(), is_better);
    threshold_ = kth->score - uncertainty_;
    std::erase_if(candidates_, [this](const Candidate& c) { return c.score < threshold_; });
    limit_ = std::max(limit_, 2 * candidates_.size());
  }

  std::size_t k_;
  float uncertainty_;
  float threshold_ = -std::numeric_limits<float>::infinity();
  std::size_t limit_ = std::max<std::size_t>(256, 4 * k_);
  std::vector<Candidate> candidates_;
};

/// A sum of dim products in fp32, in whatever order, is off by at most dim * 2^-24 |a||b| (Higham 2002, section 3.1; a
/// little more where dim is large). Two of them compare, and the rounded exact product is off by less than one.
float uncertainty(int64_t dim, double query_norm, double candidate_norm) {
  constexpr double kUnitRoundoff = 0x1p-24;
  const double one = static_cast<double>(dim + 2) * kUnitRoundoff * query_norm * candidate_norm * 1.01;
  if (query_norm * candidate_norm > std::numeric_limits<float>::max()) {
    throw Error("nearest neighbours: the inner products overflow fp32");
  }
  return static_cast<float>(4.0 * one);
}

float exact_product(const float* a, const float* b, int64_t dim) {
  double sum = 0.0;  // the products are exact
  for (int64_t i = 0; i < dim; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return static_cast<float>(sum);
}

}  // namespace

NearestNeighbours::NearestNeighbours(const at::Tensor& candidates, const Options& options)
    : candidates_(checked(candidates, "candidates")), options_(options) {
  if (candidates_.size(0) == 0) throw Error("nearest neighbours: expected candidates, found none");
  if (options.k < 1 || options.candidates_per_block < 1) {
    throw Error("nearest neighbours: k and candidates_per_block: expected positive numbers");
  }
  options_.k = std::min(options.k, candidates_.size(0));
  largest_norm_ = at::linalg_vector_norm(candidates_, 2, {1}, false, at::kDouble).max().item<double>();
}

Neighbours NearestNeighbours::search(const at::Tensor& all_queries) const {
  const at::Tensor queries = checked(all_queries, "queries");
  const int64_t rows = queries.size(0), k = options_.k;
  if (queries.size(1) != candidates_.size(1)) {
    throw Error("nearest neighbours: queries: expected dimension " + std::to_string(candidates_.size(1)) +
                " as the candidates, found " + std::to_string(queries.size(1)));
  }
  Neighbours result{at::empty({rows, k}, at::kLong), at::empty({rows, k}, at::kFloat)};
  for (int64_t first = 0; first < rows; first += kQueriesPerBlock) {
    const int64_t count = std::min(kQueriesPerBlock, rows - first);
    search_block(queries.narrow(0, first, count), result.indices.mutable_data_ptr<int64_t>() + first * k,
                 result.scores.mutable_data_ptr<float>() + first * k);
  }
  return result;
}

void NearestNeighbours::search_block(const at::Tensor& queries, int64_t* indices, float* scores) const {
  const int64_t count = queries.size(0), dim = queries.size(1), k = options_.k;
  const at::Tensor norms = at::linalg_vector_norm(queries, 2, {1}, false, at::kDouble);
  std::vector<Pool> pools;
  for (int64_t i = 0; i < count; ++i) {
    pools.emplace_back(k, uncertainty(dim, norms.const_data_ptr<double>()[i], largest_norm_));
  }
  const at::Tensor on_device = queries.to(options_.device);
  for (int64_t start = 0; start < candidates_.size(0); start += options_.candidates_per_block) {
    const int64_t width = std::min(options_.candidates_per_block, candidates_.size(0) - start);
    const at::Tensor block = candidates_.narrow(0, start, width).to(options_.device);
    const at::Tensor products = at::matmul(on_device, block.t()).cpu();
    const float* data = products.const_data_ptr<float>();
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pools[static_cast<std::size_t>(i)].scan(data + i * width, width, start);
    });
  }
  const float* query_data = queries.const_data_ptr<float>();
  const float* candidate_data = candidates_.const_data_ptr<float>();
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const std::vector<Candidate> best = pools[static_cast<std::size_t>(i)].best(
          [&](int64_t index) { return exact_product(query_data + i * dim, candidate_data + index * dim, dim); });
      for (int64_t j = 0; j < k; ++j) {
        indices[i * k + j] = best[static_cast<std::size_t>(j)].index;
        scores[i * k + j] = best[static_cast<std::size_t>(j)].score;
      }
    }
  });
}

}  // namespace strobe::clip
