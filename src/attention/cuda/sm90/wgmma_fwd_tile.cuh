// What the two halves of the forward on wgmma share: its tiles' places in shared memory and their order.
#pragma once

#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/sm90/config.h"
#include "src/attention/cuda/sm90/ring.cuh"
#include "src/attention/cuda/sm90/wgmma.cuh"

namespace strobe::cuda::sm90 {

template <int kHeadDim, bool kDropout>
struct FwdMemory {
  static constexpr WgmmaFwdTile kTile = fwd_tile(kHeadDim, kDropout);
  static constexpr int kRows = kTile.rows().rows(), kKeys = kTile.keys, kWarps = 4 * kTile.warpgroups,
                       kCopyingThreads = kTile.copying_warps * 32;
  static constexpr int kQueryStages = 2;
  using QueryLayout = PanelLayout<kHeadDim, kRows>;
  using KeyLayout = PanelLayout<kHeadDim, kKeys>;
  using QueryRing = Ring<kQueryStages, QueryLayout::kBytes, kCopyingThreads, kWarps>;
  using KeyRing = Ring<kTile.stages, KeyLayout::kBytes, kCopyingThreads, kWarps>;

  static constexpr int kK = QueryRing::kBufferBytesOfAll, kV = kK + KeyRing::kBufferBytesOfAll,
                       kQueryBarriers = kV + KeyRing::kBufferBytesOfAll,
                       kKBarriers = kQueryBarriers + QueryRing::kBarrierBytes,
                       kVBarriers = kKBarriers + KeyRing::kBarrierBytes,
                       kNonfinite = kVBarriers + KeyRing::kBarrierBytes, kBytes = kNonfinite + 4 * kQueryStages;
  static_assert(kBytes <= 227 * 1024);

  __device__ FwdMemory(uint32_t begin)
      : queries(begin, begin + kQueryBarriers),
        k(begin + kK, begin + kKBarriers),
        v(begin + kV, begin + kVBarriers),
        nonfinite(begin + kNonfinite) {}

  /// By one thread, before a barrier of the block.
  __device__ void init() const {
    queries.init();
    k.init();
    v.init();
    for (int i = 0; i < kQueryStages; ++i) store_shared_32(nonfinite_of(i), 0);
  }

  /// A word for each query tile in the ring: its number + 1 if a masked block of V that it sees holds an infinity or
  /// NaN.
  __device__ uint32_t nonfinite_of(int tile) const {
    return nonfinite + static_cast<uint32_t>(tile % kQueryStages * 4);
  }

  QueryRing queries;
  KeyRing k, v;
  uint32_t nonfinite;
};

/// The blocks of keys that a tile of rows is computed with.
template <int kKeys>
struct KeyBlocks {
  int first_key, count;
  Range all;  // keys that every row sees

  __device__ KeyBlocks(const Visibility& visibility, const Range& keys, int first_row, int rows)
      : first_key(keys.begin / kKeys * kKeys),
        count((keys.end - first_key + kKeys - 1) / kKeys),
        all(visibility.keys_of_all_rows(first_row, first_row + rows)) {}

  __device__ int key(int block) const { return first_key + block * kKeys; }
  __device__ bool masked(int block) const { return key(block) < all.begin || key(block) + kKeys > all.end; }
};

/// In which order the blocks of a grid take tiles: the longest of many heads first, of as many as the L2 cache holds.
struct FwdOrder {
  int tiles, heads;           // of a head; in all
  int section;                // heads
  bool last_tile_is_longest;  // as under a causal mask

  struct Tile {
    int head, tile;
  };
  __device__ Tile at(int position) const {
    const int of_section = section * tiles, first = position / of_section * section, within = position % of_section;
    const int here = min(section, heads - first), rank = within / here;
    return {first + within % here, last_tile_is_longest ? tiles - 1 - rank : rank};
  }
  /// Of a block's turn; there and back, so that no block gets the longest each time.
  static __device__ int position(int turn) {
    const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
    return turn * blocks + (turn % 2 == 0 ? block : blocks - 1 - block);
  }
};

}  // namespace strobe::cuda::sm90
