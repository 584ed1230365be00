// The grid of the passes over queries: a block has one tile of rows of one head.
#pragma once

#include "src/attention/cuda/common/geometry.cuh"

namespace strobe::cuda {

/// Of Kernel: compute(s, first, keys) for a tile that sees keys, write_hidden(s, first) for one that does not, both of
/// kRows rows from `first` on.
template <class Kernel, int kRows>
class QueryTiles {
 public:
  static int64_t num_blocks(const Call& call) {
    return int64_t{num_tiles(call)} * call.num_heads_q * (call.batch + (call.varlen() ? 1 : 0));
  }

  /// Block `index` of num_blocks.
  static __device__ void run(Kernel& kernel, const Call& call, int64_t index) {
    const int tiles = num_tiles(call);
    const int tile = tiles - 1 - static_cast<int>(index % tiles);  // under a causal mask the longest first
    const int64_t batch_head = index / tiles;
    run(kernel, call, batch_head / call.num_heads_q, static_cast<int>(batch_head % call.num_heads_q), tile);
  }

  static __device__ void run(Kernel& kernel, const Call& call, int64_t batch, int head, int tile) {
    kernel.set_head(batch, head);
    const int first = tile * kRows;
    if (batch == call.batch) {
      const int tiles = num_tiles(call);
      const Sequence spare = spare_tokens(call);
      for (int row = first; row < spare.num_q; row += tiles * kRows) kernel.write_hidden(spare, row);
      return;
    }
    const Sequence s = sequence(call, batch);
    if (first >= s.num_q) return;
    const Range keys = Visibility(call, s).keys_of_rows(first, first + kRows);
    if (keys.empty()) {
      kernel.write_hidden(s, first);
    } else {
      kernel.compute(s, first, keys);
    }
  }

  static __host__ __device__ int num_tiles(const Call& call) { return max(1, (call.seqlen_q + kRows - 1) / kRows); }
};

}  // namespace strobe::cuda
