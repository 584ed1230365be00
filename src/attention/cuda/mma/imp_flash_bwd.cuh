// FlashAttention-2 backward. Deterministic: rows, keys, queries. Otherwise the pass over keys adds to dQ as well, and a
// pass over rows rounds it: five matrix products instead of seven.
#pragma once

#include "src/attention/cuda/mma/bwd_passes.cuh"
#include "src/attention/cuda/mma/imp_flash_bwd_q.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim, bool kDropout>
void imp_flash_bwd_main(const BwdPasses<Arch, T, kHeadDim>& passes) {
  if constexpr (Arch::bwd_sums_queries(kHeadDim)) {
    if (passes.scratch().grad_q != nullptr) {
      passes.template keys<KvPass::kKeysValuesQueries, kDropout>();
      return passes.round_grad_q();
    }
    passes.template keys<KvPass::kKeysValues, kDropout>();
  } else {
    passes.template keys<KvPass::kKeys, kDropout>();
    passes.template keys<KvPass::kValues, kDropout>();
  }
  using Queries = ImpFlashBwdQ<Arch, T, kHeadDim, kDropout>;
  passes.template start<Queries>(imp_flash_bwd_q_kernel<Queries>, Queries::Tiles::num_blocks(passes.call()));
}

template <class Arch, class T, int kHeadDim>
void imp_flash_bwd(const BwdCall& call, const BwdScratch& scratch, int shared_memory, void* stream) {
  const BwdPasses<Arch, T, kHeadDim> passes(call, scratch, shared_memory, stream);
  passes.stats();
  call.rng_state == nullptr ? imp_flash_bwd_main<Arch, T, kHeadDim, false>(passes)
                            : imp_flash_bwd_main<Arch, T, kHeadDim, true>(passes);
}

}  // namespace strobe::cuda
