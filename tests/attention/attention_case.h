// One description of an attention call for every use: the lattice of tests, gradient checks, support queries,
// benchmarks.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <vector>

#include "strobe/types.h"

namespace strobe::testing {

enum class Layout {
  kBNHD,    // [B, N, H, D], as the interface describes it
  kBHND,    // [B, H, N, D] in memory
  kPacked,  // q, k and v between each other in one [B, N, Hq + 2 Hk, D]; with Nq != Nk, k and v in one [B, N, 2 Hk, D]
  kPadded,  // [B, N, H, D] with gaps after every head, row and sequence
};

struct AttentionCase {
  int64_t batch = 1;
  int64_t seqlen_q = 1;
  int64_t seqlen_k = 1;
  int64_t num_heads_q = 1;
  int64_t num_heads_k = 1;
  int64_t head_dim = 64;
  DType dtype = DType::kFloat32;

  bool causal = false;
  int64_t window_left = -1;
  int64_t window_right = -1;
  std::vector<int32_t> key_lengths{};    // empty: none
  std::vector<int32_t> query_lengths{};  // empty: none
  std::vector<int32_t> lengths_q{};      // not empty: varlen, the sequences' lengths; seqlen_q is then an upper bound
  std::vector<int32_t> lengths_k{};
  int64_t spare_tokens = 0;  // varlen: tokens behind the last sequence

  Layout layout = Layout::kBNHD;
  double dropout_p = 0.0;
  uint64_t seed = 0x1234567887654321;
  uint64_t offset = 0x0000000500000007;
  bool lse_gradient = false;
  float softmax_scale = 0.0f;  // 0: 1/sqrt(D)
  float amplitude = 1.0f;      // of q: 100 makes the softmax nearly one-hot
  int num_threads = 1;
  uint32_t data_seed = 1;

  bool is_varlen() const { return !lengths_q.empty(); }
};

std::ostream& operator<<(std::ostream& out, const AttentionCase& c);

}  // namespace strobe::testing
