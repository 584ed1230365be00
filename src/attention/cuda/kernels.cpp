#include "src/attention/cuda/kernels.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>

#include "src/attention/cuda/common/call.h"
#include "src/attention/cuda/device.h"
#include "src/attention/cuda/mma/kernels.h"
#include "src/attention/cuda/mma/mma.h"
#include "src/attention/cuda/sm80/short.h"
#include "src/attention/cuda/sm90/short_bwd.h"
#include "src/attention/cuda/sm90/wgmma.h"

namespace strobe::cuda {
namespace {

/// Who serves an algorithm on the paths from lowest to highest; the first that runs the call.
struct Row {
  std::string_view family;
  Algorithm algorithm;
  Path lowest, highest;
  const Kernels& kernels;
  std::string (*why_not_fwd)(const AttentionFwdParams&, const CudaDevice&);
  std::string (*why_not_bwd)(const AttentionBwdParams&, const CudaDevice&);

  std::string why_not(const AttentionFwdParams& params, const CudaDevice& device) const {
    return why_not_fwd(params, device);
  }
  std::string why_not(const AttentionBwdParams& params, const CudaDevice& device) const {
    return why_not_bwd(params, device);
  }
};

template <class Params>
std::string short_why_not(const Params& params, const CudaDevice& device) {
  return sm80::short_reaches(params, device) ? "" : "the short family does not reach this call";
}

template <class Arch>
constexpr Row general(Algorithm algorithm, Path lowest, Path highest, const Kernels& kernels) {
  return {"general", algorithm, lowest, highest, kernels, mma_why_not<Arch>, mma_why_not<Arch>};
}

const Row kRows[] = {
#ifdef STROBE_CUDA_SM90
    {"short", Algorithm::kImpFlashAttn, Path::kSm90, Path::kSm90, sm90::short_bwd_kernels(), sm90::short_bwd_why_not,
     sm90::short_bwd_why_not},
#endif
    {"short", Algorithm::kImpFlashAttn, Path::kSm80, Path::kSm90, sm80::short_kernels(),
     short_why_not<AttentionFwdParams>, short_why_not<AttentionBwdParams>},
#ifdef STROBE_CUDA_SM90
    {"general", Algorithm::kImpFlashAttn, Path::kSm90, Path::kSm90, sm90::wgmma_kernels(), sm90::wgmma_why_not,
     sm90::wgmma_why_not},
#endif
    general<Sm80>(Algorithm::kImpFlashAttn, Path::kSm80, Path::kSm90, imp_flash_kernels<Sm80>()),
    general<Sm80>(Algorithm::kFlashAttn, Path::kSm80, Path::kSm90, flash_kernels<Sm80>()),
#ifdef STROBE_CUDA_SM75
    general<Sm75>(Algorithm::kImpFlashAttn, Path::kSm75, Path::kSm75, imp_flash_kernels<Sm75>()),
    general<Sm75>(Algorithm::kFlashAttn, Path::kSm75, Path::kSm75, flash_kernels<Sm75>()),
#endif
};

const char* name(Algorithm algorithm) { return algorithm == Algorithm::kFlashAttn ? "flash_attn" : "imp_flash_attn"; }

/// Counts that the kernels keep in 32 bits: rows and keys of a sequence, and blocks of a grid, of which none has fewer
/// than 16 rows.
template <class Params>
void check_counts(const Params& p) {
  const int64_t longest = std::max(p.seqlen_q, p.seqlen_k);
  if (longest > kLongestSequence) {
    throw Error("seqlen: expected at most 2^29 on CUDA, got " + std::to_string(longest));
  }
  constexpr int64_t kMostBlocks = std::numeric_limits<int32_t>::max();
  int64_t blocks = 0;
  if (__builtin_mul_overflow(p.batch + 1, p.num_heads_q, &blocks) ||
      __builtin_mul_overflow(blocks, (longest + 15) / 16, &blocks) || blocks > kMostBlocks) {
    throw Error("batch: expected at most 2^31 blocks of 16 rows over sequences and heads on CUDA, got more");
  }
}

/// STROBE_CUDA_FAMILY=general leaves the short family out, so that tests and measurements reach the others at every
/// length.
bool wanted(const Row& row) {
  constexpr std::string_view kGeneral = "general";
  const char* family = std::getenv("STROBE_CUDA_FAMILY");
  if (family == nullptr || *family == '\0') return true;
  if (family != kGeneral) throw Error(std::string("STROBE_CUDA_FAMILY: expected general, got ") + family);
  return row.family == kGeneral;
}

template <class Params>
const Kernels& find(const Params& params) {
  check_counts(params);
  const CudaDevice device = active_device();
  std::string why_not;  // the last row's
  for (const Row& row : kRows) {
    if (row.algorithm != params.algorithm || device.path < row.lowest || device.path > row.highest) continue;
    if (!wanted(row)) continue;
    why_not = row.why_not(params, device);
    if (why_not.empty()) return row.kernels;
  }
  if (!why_not.empty()) throw Error(why_not);
  throw Error(std::string("algorithm: this build has no CUDA kernels of ") + name(params.algorithm) + " for the path " +
              std::string(name(device.path)));
}

}  // namespace

const Kernels& kernels(const AttentionFwdParams& params) { return find(params); }
const Kernels& kernels(const AttentionBwdParams& params) { return find(params); }

}  // namespace strobe::cuda
