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
  static constexpr int kRows = kTile.rows().rows(), kKeys = kTile.keys, kWarps = 4 * kTile.warpgroups;
  static constexpr int kQueryStages = 2;
  using QueryLayout = PanelLayout<kHeadDim, kRows>;
  using KeyLayout = PanelLayout<kHeadDim, kKeys>;
  using QueryRing = Ring<kQueryStages, QueryLayout::kBytes, kWarpgroup, kWarps>;
  using KRing = Ring<kTile.k_stages, KeyLayout::kBytes, kWarpgroup, kWarps>;
  using VRing = Ring<kTile.v_stages, KeyLayout::kBytes, kWarpgroup, kWarps>;

  static constexpr int kK = QueryRing::kBufferBytesOfAll, kV = kK + KRing::kBufferBytesOfAll,
                       kQueryBarriers = kV + VRing::kBufferBytesOfAll,
                       kKBarriers = kQueryBarriers + QueryRing::kBarrierBytes,
                       kVBarriers = kKBarriers + KRing::kBarrierBytes, kNonfinite = kVBarriers + VRing::kBarrierBytes,
                       kBytes = kNonfinite + 4 * kQueryStages;
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
  KRing k;
  VRing v;
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

/// In which order the blocks of a grid take the tiles of rows: the tiles of a head one after the other, so that its K
/// and V are read at one time, under a causal mask the longest first.
struct FwdOrder {
  int tiles, heads;  // of a head; in all
  int rotation;      // a block's position from turn to turn: all tiles of a head come to it in as many turns

  struct Tile {
    int head, tile;
  };
  __device__ Tile at(int turn) const {
    const int blocks = static_cast<int>(gridDim.x);
    const int position = turn * blocks + (static_cast<int>(blockIdx.x) + turn * rotation) % blocks;
    return {position / tiles, tiles - 1 - position % tiles};
  }
};

}  // namespace strobe::cuda::sm90
