// The forward of short sequences. One block a multiprocessor works through many heads: one or more of its warps copy,
// chunk after chunk and head after head, K and V to the slots of one ring in shared memory and Q to those of another
// (short_fwd_copier.cuh); the others each take 16 rows at a time, of whichever head is next (short_fwd_rows.cuh). A
// chunk of K and V stays until all rows of its head have used it, so it is read once; the next head's are there when
// its first rows are taken, and nobody waits for the slowest warp of a head.
#pragma once

#include <iterator>

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/sm80/short_fwd_copier.cuh"
#include "src/attention/cuda/sm80/short_fwd_rows.cuh"

namespace strobe::cuda::sm80 {

/// A computing warp.
template <class T, int kColumns, bool kMasked>
class FwdWarp {
  static constexpr uint32_t kQSlots = fwd_q_slots(kColumns);
  using Rows = FwdRows<T, kColumns, kMasked>;

 public:
  __device__ FwdWarp(const FwdCall& c, const RingPlan& plan, int lane) : c_(c), plan_(plan), lane_(lane) {}

  /// Its first tile is number `warp`; tiles are counted over the block's heads, kFwdChunkTiles a chunk of Q. It copies
  /// the rows of that tile itself if they are in the block's first `there` chunks.
  __device__ void run(int warp, int there) const {
    if (warp < there * kFwdChunkTiles) copy_queries(warp);
    uint32_t number = warp_max(static_cast<uint32_t>(warp));
#pragma unroll 1
    while (number < rings_.num_tiles()) {
      number = compute(number / kFwdChunkTiles, tile_of_chunk(static_cast<int>(number % kFwdChunkTiles)));
    }
  }

 private:
  /// The tile of the block's first head: nobody has to wait until a single warp has copied all of them.
  __device__ void copy_queries(int tile) const {
    const Work w = work(c_, blockIdx.x, c_.num_heads_q);
    const Sequence& s = w.sequence;
    const int slot = tile / kFwdChunkTiles, chunk = kMasked ? plan_.q_chunks - 1 - slot : slot;
    const int first = tile_of_chunk(tile % kFwdChunkTiles) * kShortTile, begin = chunk * kFwdChunk;
    copy_rows_async<kColumns>(
        rings_.q_tile(static_cast<uint32_t>(slot)),
        {s.q_rows<T>(c_, c_.q, w.head) + begin * c_.q.row_stride, c_.q.row_stride, 0, s.end_q - begin, c_.head_dim},
        first, first + kShortTile, Team{lane_, 32, 0});
    cp_async_commit();
    cp_async_wait<0>();
    __syncwarp();
  }

  /// Under a window the last rows of a head, which may see most, come first.
  __device__ static int tile_of_chunk(int n) { return kMasked ? kFwdChunkTiles - 1 - n : n; }

  __device__ uint32_t next_tile() const {
    uint32_t next = 0;
    if (lane_ == 0) next = fetch_increment_shared(rings_.next_tile());
    return warp_max(next);
  }

  /// Returns the number of the warp's next tile.
  __device__ uint32_t compute(uint32_t q_chunk, int tile) const {
    const uint32_t q_slot = q_chunk % kQSlots;
    // A barrier does not tell a round from the next but one.
    wait_for_shared(rings_.chunk_number(q_slot), q_chunk);
    mbarrier_wait(rings_.q_full(q_slot), q_chunk / kQSlots & 1);
    const FwdChunk<T> chunk = rings_.template chunk<T>(q_slot);
    FwdOut<T>& to = rings_.template out<T>(threadIdx.x / 32);  // rather than in registers all the while
    if (lane_ == 0) to = chunk.to;
    const int first_row = chunk.first_row + tile * kShortTile;
    const Visibility see(c_, Sequence{0, 0, 0, 0, chunk.diagonal, chunk.end_q, chunk.end_k});
    Rows rows(c_, see, first_row, lane_);
    rows.load_queries(rings_.q_tile(q_slot) + static_cast<uint32_t>(tile * TileLayout<kColumns>::bytes(kShortTile)));
    __syncwarp();
    if (lane_ == 0) mbarrier_arrive(rings_.q_empty(q_slot));
    if (first_row >= plan_.row_tiles * kShortTile) return next_tile();
    if (chunk.end_q < chunk.num_q) write_hidden_rows(chunk, first_row);
    attend(rows, see, first_row, chunk);
    const uint32_t next = next_tile();
    if (first_row < chunk.end_q) {
      rows.store(to.out, to.lse, kMasked && c_.rng_state != nullptr ? dropout_scale(c_.dropout_threshold) : 1.0f);
    }
    return next;
  }

  /// All chunks of the head, each freed when it has been used.
  __device__ void attend(Rows& rows, const Visibility& see, int first_row, const FwdChunk<T>& chunk) const {
    const Range keys = keys_of_tile<kMasked>(see, first_row);
    const int begin = keys.begin / kFwdChunk * kFwdChunk, end = first_row < see.end_q ? keys.end : 0;
    const auto drop = [&](auto& p, int first_key) {
      if constexpr (kMasked) {
        if (c_.rng_state == nullptr) return;
        const Dropout dropout(c_, 0, chunk.head);
#pragma unroll
        for (int t = 0; t + 4 <= static_cast<int>(std::size(p)); t += 4) {
          dropout.apply(p[t], p[t + 1], p[t + 2], p[t + 3], rows.row(0), first_key + 8 * t + accumulator_column(lane_));
        }
      }
    };
    Slot slot{warp_max(chunk.slot), warp_max(chunk.round)};
#pragma unroll 1
    for (int first = 0; first < plan_.k_chunks * kFwdChunk; first += kFwdChunk) {
      mbarrier_wait(rings_.full(slot.index), slot.round & 1);  // also if it is not used: to count as its reader
      if ((!kMasked || first >= begin) && first < end) {
        rows.attend(rings_.k_tile(slot.index), rings_.v_tile(slot.index), first, end, drop);
      }
      __syncwarp();
      if (lane_ == 0) mbarrier_arrive(rings_.empty(slot.index));
      slot.advance(1, plan_.slots);
    }
  }

  /// Rows that no kernel computes: each tile writes those that it holds, and those a head's tiles further on.
  __device__ void write_hidden_rows(const FwdChunk<T>& chunk, int first_row) const {
    const int chunks = c_.head_dim / kChunkElements;
#pragma unroll 1
    for (int first = first_row; first < chunk.num_q; first += plan_.row_tiles * kShortTile) {
      const int begin = max(first, chunk.end_q), end = min(first + kShortTile, chunk.num_q);
#pragma unroll 1
      for (int i = lane_; i < (end - begin) * chunks; i += 32) {
        *reinterpret_cast<uint4*>(chunk.to.out + (begin + i / chunks) * c_.out.row_stride +
                                  i % chunks * kChunkElements) = make_uint4(0, 0, 0, 0);
      }
      if (begin + lane_ < end) chunk.to.lse[begin + lane_] = -kInfinity;
    }
  }

  const FwdCall& c_;
  const RingPlan& plan_;
  Rings<kColumns> rings_;
  int lane_;
};

/// kMasked: a window or dropout; without, each row sees all keys that the lengths leave.
template <class T, int kColumns, bool kMasked>
__global__ void __launch_bounds__(fwd_warps(kColumns, kMasked) * 32, 1)
    short_fwd_ring(const __grid_constant__ FwdCall c, const __grid_constant__ RingPlan plan) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32,
            computing = (static_cast<int>(blockDim.x) / 32) - static_cast<int>(plan.copiers);
  const Rings<kColumns> rings;
  if (threadIdx.x == 0) {
    for (uint32_t slot = 0; slot < fwd_q_slots(kColumns); ++slot) {
      store_shared_32(rings.chunk_number(slot), ~0u);
      mbarrier_init(rings.q_full(slot), 32 + 1);  // the copies of each lane, and the FwdChunk
      mbarrier_init(rings.q_empty(slot), kFwdChunkTiles);
    }
    for (uint32_t slot = 0; slot < plan.slots; ++slot) {
      mbarrier_init(rings.full(slot), 32);
      mbarrier_init(rings.empty(slot), plan.row_tiles);
    }
    store_shared_32(rings.next_tile(), static_cast<uint32_t>(computing));
    const uint32_t heads = (plan.units - blockIdx.x + gridDim.x - 1) / gridDim.x;
    rings.num_tiles() = heads * static_cast<uint32_t>(plan.q_chunks * kFwdChunkTiles);
  }
  __syncthreads();
  // Where a block has few heads, one warp takes too long to copy the first.
  const bool few = plan.copiers == 1 && plan.units <= 2 * gridDim.x;
  const int there = few ? min(computing / kFwdChunkTiles, min(plan.q_chunks, fwd_q_slots(kColumns))) : 0;
  if (warp >= computing) {
    FwdCopier<T, kColumns, kMasked>(c, plan, static_cast<uint32_t>(warp - computing), there, lane).run();
  } else {
    FwdWarp<T, kColumns, kMasked>(c, plan, lane).run(warp, there);
  }
}

}  // namespace strobe::cuda::sm80
