// What one instruction set's translation unit offers: the tasks of every call, to be run by any workers in any order.
#pragma once

#include <cstdint>

#include "strobe/attention.h"

namespace strobe::cpu {

/// A call is one or two phases of tasks; the second starts when the first has ended.
template <class Params>
struct Stage {
  int phases;
  int64_t (*tasks)(const Params&, int phase);
  int64_t (*shared_bytes)(const Params&);   // what the phases hand on
  int64_t (*scratch_bytes)(const Params&);  // of each worker; both kinds of memory are 64-byte aligned
  void (*run)(const Params&, int phase, int64_t begin, int64_t end, void* shared, void* scratch);
};

struct AlgorithmStages {
  Stage<AttentionFwdParams> fwd;
  Stage<AttentionBwdParams> bwd;
};

/// For one element type.
struct Stages {
  AlgorithmStages flash_attn, imp_flash_attn;
};

namespace generic {
extern const Stages kFloat32Stages, kBFloat16Stages;
}
#ifdef STROBE_CPU_X86
namespace avx2 {
extern const Stages kFloat32Stages, kBFloat16Stages;
}
namespace avx512 {
extern const Stages kFloat32Stages, kBFloat16Stages;
}
namespace avx512_bf16 {  // fp32 is avx512's
extern const Stages kBFloat16Stages;
}
#endif

}  // namespace strobe::cpu
