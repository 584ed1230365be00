#define STROBE_ISA avx512
#include "src/attention/cpu/simd/avx512.h"

#include "src/attention/cpu/stages-inl.h"

namespace strobe::cpu::avx512 {
const Stages kFloat32Stages = kStages<float>;
const Stages kBFloat16Stages = kStages<Bf16>;
}  // namespace strobe::cpu::avx512
