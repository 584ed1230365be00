// The CPU kernels behind the dispatch table. Each instruction set compiles the same source into its own Kernels.
#pragma once

#include "src/attention/cpu/isa.h"
#include "src/attention/kernels.h"

namespace strobe::cpu {

const Kernels& kernels(Isa isa, Algorithm algorithm);

}  // namespace strobe::cpu
