// The forward of mma/imp_flash_fwd.cuh on wgmma (the order of products and exponentials: Shah et al. 2024, arXiv
// 2407.08608, Algorithm 2): some warps of a block copy, each warpgroup of the others has 64 query rows. The products of
// the scores of a block of keys and of the probabilities of the block before are under way together, so that O is
// summed under the exponentials. A block of the grid stays and takes one tile of queries after the other, whose Q, K
// and V the copying warps fetch under the tile before.
#pragma once

#include <algorithm>
#include <numeric>
#include <type_traits>

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/mma/query_tiles.cuh"
#include "src/attention/cuda/sm90/kernels.h"
#include "src/attention/cuda/sm90/wgmma_fwd_copier.cuh"

namespace strobe::cuda::sm90 {

template <class T, int kHeadDim, bool kDropout>
class WgmmaFwdRows : public FwdRows<T, kHeadDim, FwdMemory<kHeadDim, kDropout>::kTile.rows(), kDropout,
                                    typename FwdMemory<kHeadDim, kDropout>::QueryLayout> {
  using Memory = FwdMemory<kHeadDim, kDropout>;
  using QueryLayout = typename Memory::QueryLayout;
  using KeyLayout = typename Memory::KeyLayout;
  using Base = FwdRows<T, kHeadDim, Memory::kTile.rows(), kDropout, QueryLayout>;
  using Base::call_, Base::shared_, Base::shared_address_, Base::out_, Base::lane, Base::warp;
  using Base::kRows, Base::kKeys;
  using typename Base::Scores, typename Base::RowValues;
  using Probabilities = uint32_t[kKeys / 16][4];
  static constexpr int kWarpgroupRows = 64;

 public:
  __device__ WgmmaFwdRows(const FwdCall& call, unsigned char* shared, const Memory& memory, int warpgroup)
      : Base(call, shared), memory_(memory), warpgroup_(warpgroup) {}

  __device__ void compute(const Sequence& s, int first, const Range& keys) {
    const int row = first + warpgroup_ * kWarpgroupRows;
    this->clear();
    memory_.queries.wait(tile_);
    {
      const Visibility visibility(call_, s);
      const KeyBlocks<kKeys> blocks(visibility, keys, first, kRows);
      const Range some = visibility.keys_of_rows(row, row + kWarpgroupRows);
      const int number = block_;
      block_ += blocks.count;
      if (some.empty()) {
        skip(number, block_);
      } else {
        const int begin = max(0, (some.begin - blocks.first_key) / kKeys);
        const int end = min(blocks.count, (some.end - blocks.first_key + kKeys - 1) / kKeys);
        skip(number, number + begin);
        visit(visibility.keys_of_all_rows(row, row + kWarpgroupRows), row, blocks.key(begin), number + begin,
              number + end);
        skip(number + end, block_);
      }
    }
    // What was known of the tile is found out again: the products leave few registers.
    if (limited(call_) &&
        *reinterpret_cast<const int*>(shared_ + (memory_.nonfinite_of(tile_) - shared_address_)) == tile_ + 1) {
      mark_nonfinite(first);
    }
    named_barrier(barrier(), kWarpgroup);  // nobody reads Q any more
    this->write(first + warp() * 16, memory_.queries.buffer(tile_), [](float sum) { return 1.0f / sum; });
    __syncwarp();
    memory_.queries.release(tile_);
    ++tile_;
  }

  __device__ void finish() const {}

 private:
  __device__ int barrier() const { return 1 + warpgroup_; }

  /// Blocks of keys [number, end) that the warpgroup does not see.
  __device__ void skip(int number, int end) const {
#pragma unroll 1
    for (; number < end; ++number) {
      memory_.k.wait(number);
      memory_.k.release(number);
      memory_.v.wait(number);
      memory_.v.release(number);
    }
  }

  /// Blocks of keys [number, end), of which it sees each, from `key` on. `all`: the keys that all of its rows see,
  /// which are those from `row` on.
  __device__ void visit(const Range& all, int row, int key, int number, int end) {
    const int warp_row = row + warp() % 4 * 16;
    const float to_exponent = call_.softmax_scale * kLog2E;
    const uint32_t queries =
        memory_.queries.buffer(tile_) + static_cast<uint32_t>(QueryLayout::row_bytes(warpgroup_ * kWarpgroupRows));
    Scores scores;
    RowValues sums;
    float factors[2];
    Probabilities probabilities;
    const auto mask = [&](int key) {
      if (key < all.begin || key + kKeys > all.end) this->hide(scores, warp_row, key);
    };
    memory_.k.wait(number);
    wgmma_fence_shared();
    score(scores, queries, number);
    wgmma_wait<0>(scores[0]);
    mask(key);
    this->follow(scores, sums, to_exponent, true, [](int, int, float) {});  // O is 0
    this->template to_probabilities<true>(scores, to_exponent, sums);
    memory_.k.release(number);
    this->add_sums(sums);
    round(probabilities, scores, warp_row, key);
#pragma unroll 1
    while (++number < end) {
      key += kKeys;
      memory_.k.wait(number);
      memory_.v.wait(number - 1);
      wgmma_fence_shared();
      score(scores, queries, number);
      add_values(probabilities, number - 1);
      wgmma_wait<1>(scores[0]);
      mask(key);
      this->template to_probabilities<false>(scores, to_exponent, sums);
      const bool follows = uniform(named_barrier_any(barrier(), kWarpgroup, !this->in_range(sums)));
      if (follows) {
        score(scores, queries, number);
        wgmma_wait<0>(scores[0]);
        mask(key);
        factors[0] = factors[1] = 1.0f;
        this->follow(scores, sums, to_exponent, false, [&](int, int r, float factor) { factors[r] = factor; });
        this->template to_probabilities<true>(scores, to_exponent, sums);
      }
      memory_.k.release(number);
      this->add_sums(sums);
      wgmma_wait<0>(out_[0], probabilities);
      memory_.v.release(number - 1);
      if (follows) {
        this->scale_out(0, 0, factors[0]);
        this->scale_out(0, 1, factors[1]);
      }
      round(probabilities, scores, warp_row, key);
    }
    memory_.v.wait(end - 1);
    wgmma_fence_shared();
    add_values(probabilities, end - 1);
    wgmma_wait<0>(out_[0], probabilities);
    memory_.v.release(end - 1);
  }

  /// Starts S = Q K^T.
  __device__ void score(Scores& scores, uint32_t queries, int number) const {
    const auto q = WgmmaOperand::k_is_column(queries), k = WgmmaOperand::k_is_column(memory_.k.buffer(number));
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < kHeadDim; d += 16) {
      wgmma<T, 0, 0>(scores[0], q.at(QueryLayout::column_bytes(d)), k.at(KeyLayout::column_bytes(d)), d > 0);
    }
    wgmma_commit();
  }

  /// Probabilities become fragments, without those that are dropped.
  __device__ void round(Probabilities& a, Scores& scores, int warp_row, int key) const {
    if constexpr (kDropout) this->drop(scores, warp_row, key);
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) accumulators_to_a<T>(a[j], scores[0][2 * j], scores[0][2 * j + 1]);
  }

  /// Starts O += P V.
  __device__ void add_values(const Probabilities& probabilities, int number) {
    const auto v = WgmmaOperand::k_is_row(memory_.v.buffer(number), KeyLayout::kPanelBytes);
    wgmma_fence();
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      wgmma<T, 1>(out_[0], probabilities[j], v.at(KeyLayout::row_bytes(j * 16)), 1);
    }
    wgmma_commit();
  }

  /// NaN in O where one of the values is seen that FwdCopier has zeroed.
  __device__ void mark_nonfinite(int first) {
    const Sequence s = sequence(call_, this->batch_);
    const Visibility visibility(call_, s);
    const KeyBlocks<kKeys> blocks(visibility, visibility.keys_of_rows(first, first + kRows), first, kRows);
    const T* const values = s.k_rows<T>(call_, call_.v, this->head_ / call_.group()) + accumulator_column(lane());
#pragma unroll 1
    for (int i = 0; i < blocks.count; ++i) {
      if (!blocks.masked(i)) continue;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Range seen = visibility.keys_of(first + warp() * 16 + r * 8 + accumulator_row(lane()));
        const int end = min(blocks.key(i) + kKeys, seen.end);
#pragma unroll 1
        for (int j = max(blocks.key(i), seen.begin); j < end; ++j) {
#pragma unroll
          for (int n = 0; n < kHeadDim / 8; ++n) {
            if (n * kChunkElements >= call_.head_dim) break;
            const uint32_t pair =
                *reinterpret_cast<const uint32_t*>(values + j * call_.v.row_stride + n * kChunkElements);
            if (!low_is_finite<T>(pair)) out_[0][n][2 * r] = NAN;
            if (!low_is_finite<T>(pair >> 16)) out_[0][n][2 * r + 1] = NAN;
          }
        }
      }
    }
  }

  const Memory& memory_;
  int warpgroup_;
  int tile_ = 0, block_ = 0;  // of queries, of keys: so many are computed with
};

template <class T, int kHeadDim, bool kDropout>
__global__ __launch_bounds__(fwd_tile(kHeadDim, kDropout).threads(),
                             1) void wgmma_fwd_kernel(const __grid_constant__ FwdCall call,
                                                      const __grid_constant__ FwdOrder order) {
  using Memory = FwdMemory<kHeadDim, kDropout>;
  constexpr WgmmaFwdTile kTile = Memory::kTile;
  unsigned char* const shared = dynamic_shared_memory();
  const Memory memory(shared_address(shared));
  if (threadIdx.x == 0) memory.init();
  __syncthreads();
  const auto run = [&]<class Kernel>(Kernel kernel) {
    const int turns = (order.tiles * order.heads + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x);
#pragma unroll 1
    for (int turn = 0; turn < turns; ++turn) {
      const FwdOrder::Tile at = order.at(turn);
      if (at.head >= order.heads) break;
      QueryTiles<Kernel, Memory::kRows>::run(kernel, call, at.head / call.num_heads_q, at.head % call.num_heads_q,
                                             at.tile);
    }
    kernel.finish();
  };
  const int warpgroup = uniform(static_cast<int>(threadIdx.x) / kWarpgroup);
  if (warpgroup == kTile.warpgroups) {
    give_registers<kTile.copying_registers>();
    run(FwdCopier<T, kHeadDim, kDropout>(call, shared, memory));
  } else {
    take_registers<kTile.registers>();
    run(WgmmaFwdRows<T, kHeadDim, kDropout>(call, shared, memory, warpgroup));
  }
}

template <class T, int kHeadDim>
void wgmma_fwd(const FwdCall& call, const CudaDevice& device, void* stream) {
  const auto start = [&]<bool kDropout>(std::bool_constant<kDropout>) {
    using Memory = FwdMemory<kHeadDim, kDropout>;
    FwdOrder order{};
    order.tiles = QueryTiles<WgmmaFwdRows<T, kHeadDim, kDropout>, Memory::kRows>::num_tiles(call);
    order.heads = static_cast<int>(call.num_heads_q * (call.batch + (call.varlen() ? 1 : 0)));
    const int tiles = order.tiles * order.heads, blocks = std::min(tiles, device.multiprocessors);
    while (std::gcd(blocks + order.rotation, order.tiles) != 1) ++order.rotation;
    // Where few unequal tiles come to a block, each is left to the next free multiprocessor.
    const bool stay = call.window_right == kUnlimited || order.heads >= blocks;
    launch("attention_forward", wgmma_fwd_kernel<T, kHeadDim, kDropout>, stay ? blocks : tiles, Memory::kTile.threads(),
           Memory::kBytes, stream, call, order);
  };
  call.rng_state == nullptr ? start(std::false_type()) : start(std::true_type());
}

}  // namespace strobe::cuda::sm90
