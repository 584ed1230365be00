#define STROBE_ISA avx512_bf16
#include "src/attention/cpu/simd/avx512_bf16.h"

#include "src/attention/cpu/stages-inl.h"

namespace strobe::cpu::avx512_bf16 {
const Stages kBFloat16Stages = kStages<Bf16>;
}  // namespace strobe::cpu::avx512_bf16
