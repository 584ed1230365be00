// FlashAttention backward as published (Dao et al. 2022, arXiv 2205.14135, Algorithm 4): a block has one key/value
// head. The outer loop goes over blocks of keys, whose dK and dV stay in registers, the inner one over the query tiles
// that see them; dQ is added to in fp32 in memory at each step, always by the same thread, so its order is fixed.
#pragma once

#include "src/attention/cuda/mma/bwd_passes.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim>
void flash_bwd(const BwdCall& call, const BwdScratch& scratch, int shared_memory, void* stream) {
  const BwdPasses<Arch, T, kHeadDim> passes(call, scratch, shared_memory, stream);
  passes.stats();
  call.rng_state == nullptr ? passes.template keys<KvPass::kKeysValuesQueriesInOrder, false>()
                            : passes.template keys<KvPass::kKeysValuesQueriesInOrder, true>();
  passes.round_grad_q();
}

}  // namespace strobe::cuda
