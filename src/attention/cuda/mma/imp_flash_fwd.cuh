// FlashAttention-2 forward (Dao 2023, arXiv 2307.08691, Algorithm 1): a block takes one tile of query rows of one head
// and walks over the key blocks that its rows see; each warp keeps its own rows' scores, maximum, sum and output in
// registers, so the warps share nothing but the loads of K and V.
#pragma once

#include <type_traits>

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/mma/mma_fwd_rows.cuh"
#include "src/attention/cuda/mma/query_tiles.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim, bool kDropout>
class ImpFlashFwd : public MmaFwdRows<Arch, T, kHeadDim, Arch::fwd_tile(kHeadDim, kDropout), kDropout> {
  static constexpr FwdTile kTile = Arch::fwd_tile(kHeadDim, kDropout);
  using Base = MmaFwdRows<Arch, T, kHeadDim, kTile, kDropout>;
  using Base::call_, Base::shared_address_, Base::warp, Base::thread, Base::kWarpRows;
  using typename Base::Layout, typename Base::Scores, typename Base::RowValues;

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
      visit(k_tile(stage), v_tile(stage), warp_row, key, key < all.begin || key + kKeys > all.end, key <= some.begin);
    }
    this->write(warp_row, shared_address_, [](float sum) { return 1.0f / sum; });
  }

 private:
  __device__ uint32_t k_tile(int stage) const {
    return shared_address_ + static_cast<uint32_t>(Layout::bytes(kRows) + stage * kStageBytes);
  }
  __device__ uint32_t v_tile(int stage) const { return k_tile(stage) + Layout::bytes(kKeys); }

  /// `first`: no row of the warp has a maximum yet.
  __device__ void visit(uint32_t k, uint32_t v, int warp_row, int key, bool masked, bool first) {
    const float to_exponent = call_.softmax_scale * kLog2E;
    Scores scores;
    RowValues sums;
    this->score(scores, shared_address_, k, warp_row, key, masked);
    bool follows = first;
    if (!first) {
      this->template to_probabilities<false>(scores, to_exponent, sums);
      follows = __any_sync(0xFFFFFFFFu, !this->in_range(sums));
      if (follows) this->score(scores, shared_address_, k, warp_row, key, masked);
    }
    if (follows) {
      this->follow(scores, sums, to_exponent, first,
                   [&](int m, int r, float factor) { this->scale_out(m, r, factor); });
      this->template to_probabilities<true>(scores, to_exponent, sums);
    }
    this->add_sums(sums);
    this->add_values(scores, v, warp_row, key, masked);
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
