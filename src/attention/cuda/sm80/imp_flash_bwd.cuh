// The passes of the backward in their order. Deterministic: rows, keys, queries. Otherwise the pass over keys adds to
// dQ as well, and a pass over rows rounds it: five matrix products instead of seven.
#pragma once

#include <type_traits>

#include "src/attention/cuda/sm80/bwd_rows.cuh"
#include "src/attention/cuda/sm80/imp_flash_bwd_kv.cuh"
#include "src/attention/cuda/sm80/imp_flash_bwd_q.cuh"
#include "src/attention/cuda/sm80/kernels.h"

namespace strobe::cuda::sm80 {

template <class T, int kHeadDim>
class ImpFlashBwd {
 public:
  static void run(const BwdCall& call, const BwdScratch& scratch, int shared_memory, void* stream) {
    const ImpFlashBwd passes(call, scratch, shared_memory, stream);
    passes.rows(bwd_stats_kernel<T, kHeadDim>);
    call.rng_state == nullptr ? passes.template main<false>() : passes.template main<true>();
  }

 private:
  ImpFlashBwd(const BwdCall& call, const BwdScratch& scratch, int shared_memory, void* stream)
      : call_(call), scratch_(scratch), shared_memory_(shared_memory), stream_(stream) {}

  void rows(void (*kernel)(BwdCall, BwdScratch)) const {
    launch("attention_backward", kernel, RowPlace::num_blocks(call_), kRowThreads, 0, stream_, call_, scratch_);
  }

  template <KvPass kPass, bool kDropout>
  void keys() const {
    constexpr BwdKvTile kSmall = bwd_kv_tile(kHeadDim, false), kLarge = bwd_kv_tile(kHeadDim, true);
    if constexpr (kSmall != kLarge) {
      if (shared_memory_ >= kLargeSharedMemory) return keys<ImpFlashBwdKv<T, kHeadDim, kLarge, kPass, kDropout>>();
    }
    using Kernel = ImpFlashBwdKv<T, kHeadDim, kSmall, kPass, kDropout>;
    static_assert(Kernel::kSharedBytes <= kSharedMemory);
    keys<Kernel>();
  }

  template <class Kernel>
  void keys() const {
    static_assert(Kernel::kSharedBytes <= kLargeSharedMemory);
    launch("attention_backward", imp_flash_bwd_kv_kernel<Kernel>, Kernel::num_blocks(call_), Kernel::kThreads,
           Kernel::kSharedBytes, stream_, call_, scratch_);
  }

  template <bool kDropout>
  void queries() const {
    using Kernel = ImpFlashBwdQ<T, kHeadDim, kDropout>;
    launch("attention_backward", imp_flash_bwd_q_kernel<Kernel>, Kernel::num_blocks(call_), Kernel::kThreads,
           Kernel::kSharedBytes, stream_, call_, scratch_);
  }

  template <bool kDropout>
  void main() const {
    if constexpr (bwd_sums_queries(kHeadDim)) {
      if (scratch_.grad_q != nullptr) {
        keys<KvPass::kKeysValuesQueries, kDropout>();
        rows(bwd_grad_q_kernel<T, kHeadDim>);
        return;
      }
      keys<KvPass::kKeysValues, kDropout>();
    } else {
      keys<KvPass::kKeys, kDropout>();
      keys<KvPass::kValues, kDropout>();
    }
    queries<kDropout>();
  }

  const BwdCall& call_;
  const BwdScratch& scratch_;
  int shared_memory_;
  void* stream_;
};

template <class T, int kHeadDim>
void imp_flash_bwd(const BwdCall& call, const BwdScratch& scratch, int shared_memory, void* stream) {
  ImpFlashBwd<T, kHeadDim>::run(call, scratch, shared_memory, stream);
}

}  // namespace strobe::cuda::sm80
