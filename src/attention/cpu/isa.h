// Which instruction set the CPU kernels use.
#pragma once

#include <string_view>
#include <vector>

namespace strobe::cpu {

/// In the order of preference, each a superset of those before it.
enum class Isa { kGeneric, kAvx2, kAvx512, kAvx512Bf16 };

/// "generic", "avx2", "avx512", "avx512_bf16".
std::string_view name(Isa isa);

/// What this machine can run, lowest first.
std::vector<Isa> supported_isas();

/// The highest supported, or what the environment variable STROBE_CPU_ISA names (read at each call, so that tests can
/// change it). Throws strobe::Error where that name is unknown or the machine cannot run it.
Isa active_isa();

}  // namespace strobe::cpu
