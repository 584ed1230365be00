// Launches of the backward's passes.
#pragma once

#include "src/attention/cuda/mma/bwd_kv.cuh"
#include "src/attention/cuda/mma/bwd_rows.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim>
class BwdPasses {
 public:
  BwdPasses(const BwdCall& call, const BwdScratch& scratch, int shared_memory, void* stream)
      : call_(call), scratch_(scratch), shared_memory_(shared_memory), stream_(stream) {}

  const BwdCall& call() const { return call_; }
  const BwdScratch& scratch() const { return scratch_; }

  /// Before the others.
  void stats() const { rows(bwd_stats_kernel<T, kHeadDim, RowSums<kHeadDim>>); }
  /// After a pass that has added to the sums of dQ.
  void round_grad_q() const { rows(bwd_grad_q_kernel<T, RowSums<kHeadDim>>); }

  /// With the tile for as much shared memory as there is.
  template <KvPass kPass, bool kDropout, std::size_t kLevel = Arch::kSharedMemoryLevels.size() - 1>
  void keys() const {
    constexpr int kBytes = Arch::kSharedMemoryLevels[kLevel];
    constexpr BwdKvTile kTile = tile(kPass, kBytes);
    if constexpr (kLevel > 0) {
      if (shared_memory_ < kBytes) return keys<kPass, kDropout, kLevel - 1>();
    }
    using Kernel = BwdKv<Arch, T, kHeadDim, kTile, kPass, kDropout>;
    static_assert(Kernel::kSharedBytes <= kBytes);
    start<Kernel>(bwd_kv_kernel<Kernel>, Kernel::kInOrder ? Kernel::num_heads(call_) : Kernel::num_blocks(call_));
  }

  template <class Kernel>
  void start(void (*kernel)(BwdCall, BwdScratch), int64_t blocks) const {
    launch("attention_backward", kernel, blocks, Kernel::kThreads, Kernel::kSharedBytes, stream_, call_, scratch_);
  }

 private:
  static constexpr BwdKvTile tile(KvPass pass, int shared_memory) {
    return pass == KvPass::kKeysValuesQueriesInOrder ? Arch::flash_bwd_tile(kHeadDim)
                                                     : Arch::bwd_kv_tile(kHeadDim, shared_memory);
  }

  void rows(void (*kernel)(BwdCall, BwdScratch)) const {
    launch("attention_backward", kernel, RowPlace::num_blocks(call_), kRowThreads, 0, stream_, call_, scratch_);
  }

  const BwdCall& call_;
  const BwdScratch& scratch_;
  int shared_memory_;
  void* stream_;
};

}  // namespace strobe::cuda
