// The CPU kernels behind the dispatch table. Each instruction set compiles the same source into its own CpuKernels.
#pragma once

#include <cstddef>

#include "src/attention/cpu/isa.h"
#include "strobe/attention.h"

namespace strobe::cpu {

/// One algorithm on one instruction set. The params have passed validation.
struct CpuKernels {
  std::size_t (*fwd_workspace_size)(const AttentionFwdParams&);
  void (*fwd)(const AttentionFwdParams&);
  std::size_t (*bwd_workspace_size)(const AttentionBwdParams&);
  void (*bwd)(const AttentionBwdParams&);
};

const CpuKernels& kernels(Isa isa, Algorithm algorithm);

}  // namespace strobe::cpu
