#include "src/attention/cpu/kernels.h"

#include <array>
#include <utility>

#include "src/attention/cpu/stages.h"

namespace strobe::cpu {
namespace {

constexpr int64_t kAlignment = 256;

const Stages& stages(Isa isa, DType dtype) {
  const bool fp32 = dtype == DType::kFloat32;
  switch (isa) {
#ifdef STROBE_CPU_X86
    case Isa::kAvx512Bf16:
      return fp32 ? avx512::kFloat32Stages : avx512_bf16::kBFloat16Stages;
    case Isa::kAvx512:
      return fp32 ? avx512::kFloat32Stages : avx512::kBFloat16Stages;
    case Isa::kAvx2:
      return fp32 ? avx2::kFloat32Stages : avx2::kBFloat16Stages;
#endif
    default:
      return fp32 ? generic::kFloat32Stages : generic::kBFloat16Stages;
  }
}

template <class Params>
const Stage<Params>& stage(Isa isa, Algorithm algorithm, DType dtype) {
  const Stages& all = stages(isa, dtype);
  const AlgorithmStages& chosen = algorithm == Algorithm::kFlashAttn ? all.flash_attn : all.imp_flash_attn;
  if constexpr (std::is_same_v<Params, AttentionFwdParams>) {
    return chosen.fwd;
  } else {
    return chosen.bwd;
  }
}

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <class Params>
int64_t tasks(const Stage<Params>& work, const Params& p) {
  int64_t result = 0;
  for (int phase = 0; phase < work.phases; ++phase) result += work.tasks(p, phase);
  return result;
}

template <Isa kIsa, Algorithm kAlgorithm, class Params>
std::size_t workspace_size(const Params& p) {
  const Stage<Params>& work = stage<Params>(kIsa, kAlgorithm, p.dtype);
  if (tasks(work, p) == 0) return 0;
  return static_cast<std::size_t>(aligned(work.shared_bytes(p)) + p.num_threads * aligned(work.scratch_bytes(p)));
}

template <Isa kIsa, Algorithm kAlgorithm, class Params>
void run(const Params& p) {
  const Stage<Params>& work = stage<Params>(kIsa, kAlgorithm, p.dtype);
  char* const shared = static_cast<char*>(p.workspace);
  char* const scratch = shared + aligned(work.shared_bytes(p));
  const int64_t scratch_bytes = aligned(work.scratch_bytes(p));
  for (int phase = 0; phase < work.phases; ++phase) {
    const int64_t count = work.tasks(p, phase);
    const auto body = [&](int64_t begin, int64_t end, int worker) {
      work.run(p, phase, begin, end, shared, scratch + worker * scratch_bytes);
    };
    if (count == 0) continue;
    if (p.parallel_for == nullptr || p.num_threads == 1) {
      body(0, count, 0);
    } else {
      p.parallel_for(count, body);
    }
  }
}

template <Isa kIsa, Algorithm kAlgorithm>
constexpr Kernels kKernels{
    &workspace_size<kIsa, kAlgorithm, AttentionFwdParams>, &run<kIsa, kAlgorithm, AttentionFwdParams>,
    &workspace_size<kIsa, kAlgorithm, AttentionBwdParams>, &run<kIsa, kAlgorithm, AttentionBwdParams>};

template <Algorithm kAlgorithm>
const Kernels& kernels_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16:
      return kKernels<Isa::kAvx512Bf16, kAlgorithm>;
    case Isa::kAvx512:
      return kKernels<Isa::kAvx512, kAlgorithm>;
    case Isa::kAvx2:
      return kKernels<Isa::kAvx2, kAlgorithm>;
    default:
      return kKernels<Isa::kGeneric, kAlgorithm>;
  }
}

}  // namespace

const Kernels& kernels(Isa isa, Algorithm algorithm) {
  return algorithm == Algorithm::kFlashAttn ? kernels_of<Algorithm::kFlashAttn>(isa)
                                            : kernels_of<Algorithm::kImpFlashAttn>(isa);
}

}  // namespace strobe::cpu
