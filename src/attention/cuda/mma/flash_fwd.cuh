// FlashAttention forward as published (Dao et al. 2022, arXiv 2205.14135, Algorithm 1): a block has one head. The outer
// loop goes over blocks of keys, the inner one over tiles of query rows, whose output, maximum and sum wait in the
// workspace for the next block of keys: O is brought up to date, normalised, at each step. At a tile's last block of
// keys it is rounded and written instead.
#pragma once

#include <type_traits>

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/mma/flash_scratch.h"
#include "src/attention/cuda/mma/mma_fwd_rows.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim, bool kDropout>
class FlashFwd : public MmaFwdRows<Arch, T, kHeadDim, Arch::flash_fwd_tile(kHeadDim), kDropout> {
  static constexpr FwdTile kTile = Arch::flash_fwd_tile(kHeadDim);
  using Base = MmaFwdRows<Arch, T, kHeadDim, kTile, kDropout>;
  using Base::call_, Base::shared_address_, Base::batch_, Base::head_, Base::maximum_, Base::sum_, Base::out_;
  using Base::kRowTiles, Base::kWarpRows, Base::lane, Base::warp, Base::thread;
  using typename Base::Layout, typename Base::Scores;

 public:
  using Base::kRows, Base::kKeys, Base::kThreads;
  static constexpr int kSharedBytes = 2 * Layout::bytes(kRows) + 2 * Layout::bytes(kKeys);
  static_assert(kSharedBytes <= Arch::kSharedMemory);

  __device__ FlashFwd(const FwdCall& call, const FlashScratch& scratch, unsigned char* shared)
      : Base(call, shared), scratch_(scratch) {}

  static int64_t num_blocks(const FwdCall& call) { return call.num_heads_q * (call.batch + (call.varlen() ? 1 : 0)); }

  /// Block `index` of num_blocks.
  __device__ void run(int64_t index) {
    const int64_t batch = index / call_.num_heads_q;
    this->set_head(batch, static_cast<int>(index % call_.num_heads_q));
    const Sequence s = batch == call_.batch ? spare_tokens(call_) : sequence(call_, batch);
    const Visibility visibility(call_, s);
    for (int first = 0; first < s.num_q; first += kRows) {
      if (visibility.keys_of_rows(first, first + kRows).empty()) this->write_hidden(s, first);
    }
    const Range keys = visibility.keys_of_rows(0, s.end_q);
    const RowSource k = this->key_source(call_.k, s, keys), v = this->key_source(call_.v, s, keys);
    for (int key = keys.begin / kKeys * kKeys; key < keys.end; key += kKeys) {
      const Range rows = visibility.rows_of_keys(key, key + kKeys);
      if (rows.empty()) continue;
      __syncthreads();  // nobody reads the block of keys before
      typename Base::KeyCopy k_copy, v_copy;
      k_copy.start(k_tile(), k, key, thread());
      v_copy.start(v_tile(), v, key, thread());
      k_copy.finish(thread());
      v_copy.finish(thread());
      visit_rows(s, visibility, key, rows);
    }
  }

 private:
  __device__ uint32_t q_tile(int stage) const {
    return shared_address_ + static_cast<uint32_t>(stage * Layout::bytes(kRows));
  }
  __device__ uint32_t k_tile() const { return q_tile(2); }
  __device__ uint32_t v_tile() const { return k_tile() + Layout::bytes(kKeys); }

  /// The inner loop.
  __device__ void visit_rows(const Sequence& s, const Visibility& visibility, int key, const Range& rows) {
    const RowSource q = this->query_source(s);
    typename Base::QueryCopy q_copy;
    int row = rows.begin / kRows * kRows;
    q_copy.start(q_tile(0), q, row, thread());
    Arch::commit();
    for (int stage = 0; row < rows.end; row += kRows, stage ^= 1) {
      q_copy.finish(thread());
      Arch::wait();
      __syncthreads();  // the tile has arrived, and nobody reads the other one any more
      if (row + kRows < rows.end) q_copy.start(q_tile(stage ^ 1), q, row + kRows, thread());
      Arch::commit();
      const Range tile_keys = visibility.keys_of_rows(row, row + kRows);
      if (!tile_keys.empty()) visit_tile(s, visibility, key, stage, row, key <= tile_keys.begin);
    }
  }

  /// One step for this warp's rows of a tile; `tile_starts`: it is the first block of keys that the tile sees.
  __device__ void visit_tile(const Sequence& s, const Visibility& visibility, int key, int stage, int row,
                             bool tile_starts) {
    const int warp_row = row + warp() * kWarpRows;
    const Range some = visibility.keys_of_rows(warp_row, warp_row + kWarpRows);
    if (some.empty()) {
      if (!tile_starts) return;
      this->clear();
      return write(warp_row, stage);
    }
    if (key >= some.end || key + kKeys <= some.begin) return;
    const Range all = visibility.keys_of_all_rows(warp_row, warp_row + kWarpRows);
    this->clear();
    if (key > some.begin) load(s, warp_row);
    if constexpr (kTile.queries_in_registers) this->read_all_queries(q_tile(stage));
    const bool masked = key < all.begin || key + kKeys > all.end;
    Scores scores;
    this->score(scores, q_tile(stage), k_tile(), warp_row, key, masked);
    exponentiate(scores);
    this->add_values(scores, v_tile(), warp_row, key, masked);
    normalise();
    if (key + kKeys < some.end) {
      store(s, warp_row);
    } else {
      write(warp_row, stage);
    }
  }

  __device__ void write(int warp_row, int stage) {
    // O is normalised; without a sum every visible score is -inf.
    Base::write(warp_row, q_tile(stage), [](float sum) { return sum == 0.0f ? NAN : 1.0f; });
  }

  /// Calls body(m, r, i) for the lane's rows below end_q.
  template <class Body>
  __device__ void for_each_row(const Sequence& s, int warp_row, const Body& body) const {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int i = warp_row + m * 16 + r * 8 + accumulator_row(lane());
        if (i < s.end_q) body(m, r, s.lse_offset(call_, head_) + i);
      }
    }
  }

  /// From the workspace; the sum is the first lane's of a quad.
  __device__ void load(const Sequence& s, int warp_row) {
    for_each_row(s, warp_row, [&](int m, int r, int64_t i) {
      const RowSoftmax row = scratch_.rows[i];
      maximum_[m][r] = row.maximum;
      sum_[m][r] = lane() % 4 == 0 ? row.sum : 0.0f;
      const float* out = scratch_.out + i * kHeadDim + accumulator_column(lane());
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        const float2 pair = *reinterpret_cast<const float2*>(out + n * 8);
        out_[m][n][2 * r] = pair.x;
        out_[m][n][2 * r + 1] = pair.y;
      }
    });
  }

  /// To the workspace. Who reads the maximum and the sum has passed a barrier by then.
  __device__ void store(const Sequence& s, int warp_row) {
    float sums[kRowTiles][2];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) sums[m][r] = quad_sum(sum_[m][r]);
    }
    for_each_row(s, warp_row, [&](int m, int r, int64_t i) {
      if (lane() % 4 == 0) scratch_.rows[i] = {maximum_[m][r], sums[m][r]};
      float* out = scratch_.out + i * kHeadDim + accumulator_column(lane());
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        *reinterpret_cast<float2*>(out + n * 8) = float2{out_[m][n][2 * r], out_[m][n][2 * r + 1]};
      }
    });
  }

  /// Scores become probabilities relative to the new maximum, O the sum over the keys before, relative to it too.
  __device__ void exponentiate(Scores& scores) {
    const float to_exponent = call_.softmax_scale * kLog2E;
    float maximum[kRowTiles][2];
    this->row_maxima(maximum, scores);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float before = maximum_[m][r], now = fmaxf(before, maximum[m][r]);
        const float factor = before == -INFINITY ? 0.0f : exp2_approx((before - now) * to_exponent);
        this->scale_out(m, r, quad_sum(sum_[m][r]) * factor);
        sum_[m][r] *= factor;
        maximum_[m][r] = now;
      }
    }
    typename Base::RowValues sums;
    this->template to_probabilities<true>(scores, to_exponent, sums);
    this->add_sums(sums);
  }

  __device__ void normalise() {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float sum = quad_sum(sum_[m][r]);
        this->scale_out(m, r, sum == 0.0f ? 0.0f : 1.0f / sum);  // 0: the row has seen no key yet
      }
    }
  }

  const FlashScratch& scratch_;
};

template <class Kernel>
__global__ __launch_bounds__(Kernel::kThreads, 1) void flash_fwd_kernel(const __grid_constant__ FwdCall call,
                                                                        const __grid_constant__ FlashScratch scratch) {
  Kernel(call, scratch, dynamic_shared_memory()).run(blockIdx.x);
}

template <class Arch, class T, int kHeadDim>
void flash_fwd(const FwdCall& call, const FlashScratch& scratch, void* stream) {
  const auto start = [&]<bool kDropout>(std::bool_constant<kDropout>) {
    using Kernel = FlashFwd<Arch, T, kHeadDim, kDropout>;
    launch("attention_forward", flash_fwd_kernel<Kernel>, Kernel::num_blocks(call), Kernel::kThreads,
           Kernel::kSharedBytes, stream, call, scratch);
  };
  call.rng_state == nullptr ? start(std::false_type()) : start(std::true_type());
}

}  // namespace strobe::cuda
