// Nearest neighbours by inner product, exhaustively.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace strobe::clip {

struct Neighbours {
  at::Tensor indices;  // int64 [queries, min(k, candidates)], best first
  at::Tensor scores;   // fp32, the inner products
};

/// Candidates are compared by their inner product with the query, correctly rounded to fp32; equal ones stay in their
/// order. So results depend neither on the device nor on threads or block sizes: products of blocks, in fp32, only
/// choose what is computed again in fp64. Beside the arguments memory is taken for one block of products.
class NearestNeighbours {
 public:
  struct Options {
    int64_t k = 10;
    int64_t candidates_per_block = 32768;
    at::Device device = at::kCPU;  // of the products
  };

  /// candidates: fp32 [n, dim] on the CPU, finite, n > 0. Throws strobe::Error for anything else.
  NearestNeighbours(const at::Tensor& candidates, const Options& options);

  /// queries: fp32 [m, dim] on the CPU, finite.
  Neighbours search(const at::Tensor& queries) const;

 private:
  void search_block(const at::Tensor& queries, int64_t* indices, float* scores) const;

  at::Tensor candidates_;
  Options options_;
  double largest_norm_ = 0.0;  // of the candidates
};

}  // namespace strobe::clip
