// FlashAttention-2 forward (Dao 2023, arXiv 2307.08691, Algorithm 1): a block takes one tile of query rows of one head
// and walks over the key blocks that its rows see; each warp keeps its own rows' scores, maximum, sum and output in
// registers, so the warps share nothing but the loads of K and V.
#pragma once

#include <type_traits>

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/mma/fwd_rows.cuh"
#include "src/attention/cuda/mma/query_tiles.cuh"

namespace strobe::cuda {

// The running maximum follows the row's true one only where it is behind by more than this (in powers of two): what it
// is for is to keep the exponentials in range, and P up to 2^8 is. O is then rescaled rarely. The decision is the
// row's own, so no row's result depends on its neighbours.
inline constexpr float kMaximumLag = 8.0f;

template <class Arch, class T, int kHeadDim, bool kDropout>
class ImpFlashFwd : public FwdRows<Arch, T, kHeadDim, Arch::fwd_tile(kHeadDim, kDropout), kDropout> {
  static constexpr FwdTile kTile = Arch::fwd_tile(kHeadDim, kDropout);
  using Base = FwdRows<Arch, T, kHeadDim, kTile, kDropout>;
  using Base::call_, Base::shared_address_, Base::maximum_, Base::sum_, Base::lane, Base::warp, Base::thread;
  using Base::kRowTiles, Base::kWarpRows;
  using typename Base::Layout, typename Base::Scores;

 public:
  using Base::kRows, Base::kKeys, Base::kThreads;
  using Tiles = QueryTiles<ImpFlashFwd, kRows>;
  static constexpr int kStageBytes = 2 * Layout::bytes(kKeys);  // K and V
  static constexpr int kSharedBytes = Layout::bytes(kRows) + 2 * kStageBytes;
  static_assert(kSharedBytes <= Arch::kSharedMemory);

  __device__ ImpFlashFwd(const FwdCall& call, unsigned char* shared) : Base(call, shared) {}

  __device__ void compute(const Sequence& s, int first, const Range& keys) {
    typename Base::QueryCopy q_copy;
    typename Base::KeyCopy k_copy, v_copy;
    const auto load = [&](int stage, int key) {  // whose sources are made anew: registers are few
      k_copy.start(k_tile(stage), this->key_source(call_.k, s, keys), key, thread());
      v_copy.start(v_tile(stage), this->key_source(call_.v, s, keys), key, thread());
    };
    const auto arrive = [&] {
      k_copy.finish(thread());
      v_copy.finish(thread());
      Arch::wait();
      __syncthreads();  // the stage has arrived, and nobody reads the other one any more
    };
    q_copy.start(shared_address_, this->query_source(s), first, thread());
    q_copy.finish(thread());
    int key = keys.begin / kKeys * kKeys;
    load(0, key);
    Arch::commit();

    const int warp_row = first + warp() * kWarpRows;
    const Visibility visibility(call_, s);
    const Range some = visibility.keys_of_rows(warp_row, warp_row + kWarpRows);
    const Range all = visibility.keys_of_all_rows(warp_row, warp_row + kWarpRows);
    this->clear();
    if constexpr (kTile.queries_in_registers) {
      Arch::wait();
      __syncthreads();
      this->read_all_queries(shared_address_);
    }
    for (int stage = 0; key < keys.end; key += kKeys, stage ^= 1) {
      arrive();
      if (key + kKeys < keys.end) load(stage ^ 1, key + kKeys);
      Arch::commit();
      if (key >= some.end || key + kKeys <= some.begin) continue;
      this->attend(shared_address_, k_tile(stage), v_tile(stage), warp_row, key,
                   key < all.begin || key + kKeys > all.end, [&](Scores& scores) { exponentiate(scores); });
    }
    this->write(warp_row, shared_address_, [](float sum) { return 1.0f / sum; });
  }

 private:
  __device__ uint32_t k_tile(int stage) const {
    return shared_address_ + static_cast<uint32_t>(Layout::bytes(kRows) + stage * kStageBytes);
  }
  __device__ uint32_t v_tile(int stage) const { return k_tile(stage) + Layout::bytes(kKeys); }

  /// Scores become probabilities times 2^(...) of the running maximum; the sums and, where it must be, O follow.
  __device__ void exponentiate(Scores& scores) {
    const float to_exponent = call_.softmax_scale * kLog2E;
    float maximum[kRowTiles][2];
    this->row_maxima(maximum, scores);
    bool behind = false;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) behind |= (maximum[m][r] - maximum_[m][r]) * to_exponent > kMaximumLag;
    }
    if (__any_sync(0xFFFFFFFFu, behind)) rescale(maximum, to_exponent);
    this->to_probabilities(scores, to_exponent);
  }

  __device__ void rescale(const float (&maximum)[kRowTiles][2], float to_exponent) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (!((maximum[m][r] - maximum_[m][r]) * to_exponent > kMaximumLag)) continue;
        const float factor = exp2_approx((maximum_[m][r] - maximum[m][r]) * to_exponent);
        maximum_[m][r] = maximum[m][r];
        sum_[m][r] *= factor;
        this->scale_out(m, r, factor);
      }
    }
  }
};

template <class Kernel>
__global__ __launch_bounds__(Kernel::kThreads, 1) void imp_flash_fwd_kernel(const __grid_constant__ FwdCall call) {
  Kernel kernel(call, dynamic_shared_memory());
  Kernel::Tiles::run(kernel, call, blockIdx.x);
}

template <class Arch, class T, int kHeadDim>
void imp_flash_fwd(const FwdCall& call, void* stream) {
  const auto start = [&]<bool kDropout>(std::bool_constant<kDropout>) {
    using Kernel = ImpFlashFwd<Arch, T, kHeadDim, kDropout>;
    launch("attention_forward", imp_flash_fwd_kernel<Kernel>, Kernel::Tiles::num_blocks(call), Kernel::kThreads,
           Kernel::kSharedBytes, stream, call);
  };
  call.rng_state == nullptr ? start(std::false_type()) : start(std::true_type());
}

}  // namespace strobe::cuda
