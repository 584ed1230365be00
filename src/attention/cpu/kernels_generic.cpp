#define STROBE_ISA generic
#include "src/attention/cpu/simd/generic.h"

#include "src/attention/cpu/stages-inl.h"

namespace strobe::cpu::generic {
const Stages kFloat32Stages = kStages<float>;
const Stages kBFloat16Stages = kStages<Bf16>;
}  // namespace strobe::cpu::generic
