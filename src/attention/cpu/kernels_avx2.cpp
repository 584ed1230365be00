#define STROBE_ISA avx2
#include "src/attention/cpu/simd/avx2.h"

#include "src/attention/cpu/stages-inl.h"

namespace strobe::cpu::avx2 {
const Stages kFloat32Stages = kStages<float>;
const Stages kBFloat16Stages = kStages<Bf16>;
}  // namespace strobe::cpu::avx2
