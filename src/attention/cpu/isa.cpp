#include "src/attention/cpu/isa.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "strobe/types.h"

namespace strobe::cpu {
namespace {

constexpr Isa kAll[] = {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

// The builtins ask cpuid and, for the vector registers, whether the operating system saves them (xgetbv).
bool supported(Isa isa) {
#ifdef STROBE_CPU_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::kGeneric:
      return true;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx512Bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
  }
#endif
  return isa == Isa::kGeneric;
}

}  // namespace

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::kGeneric:
      return "generic";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "unknown";
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> result;
  std::copy_if(std::begin(kAll), std::end(kAll), std::back_inserter(result), supported);
  return result;
}

Isa active_isa() {
  static const std::vector<Isa> available = supported_isas();
  const char* wanted = std::getenv("STROBE_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0') return available.back();
  for (const Isa isa : kAll) {
    if (name(isa) != wanted) continue;
    if (std::find(available.begin(), available.end(), isa) != available.end()) return isa;
    throw Error(std::string("STROBE_CPU_ISA: this machine cannot run ") + wanted + ", at most " +
                std::string(name(available.back())));
  }
  throw Error(std::string("STROBE_CPU_ISA: expected generic, avx2, avx512 or avx512_bf16, found ") + wanted);
}

}  // namespace strobe::cpu
