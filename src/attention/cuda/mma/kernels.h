// The compiled kernels of this folder: one translation unit for each architecture, type, head dim and direction.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "src/attention/cuda/mma/bwd_scratch.h"
#include "src/attention/cuda/mma/flash_scratch.h"

namespace strobe::cuda {

// What a kernel is compiled for (arch.cuh).
struct Sm75;
struct Sm80;

/// kHeadDim: a native one, at least the call's. shared_memory: what a block may have, in bytes.
template <class Arch, class T, int kHeadDim>
void imp_flash_fwd(const FwdCall& call, void* stream);
template <class Arch, class T, int kHeadDim>
void imp_flash_bwd(const BwdCall& call, const BwdScratch& scratch, int shared_memory, void* stream);
template <class Arch, class T, int kHeadDim>
void flash_fwd(const FwdCall& call, const FlashScratch& scratch, void* stream);
template <class Arch, class T, int kHeadDim>
void flash_bwd(const BwdCall& call, const BwdScratch& scratch, int shared_memory, void* stream);

}  // namespace strobe::cuda
