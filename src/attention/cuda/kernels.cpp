#include "src/attention/cuda/kernels.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>

#include "src/attention/cuda/common/call.h"
#include "src/attention/cuda/device.h"
#include "src/attention/cuda/sm80/imp_flash.h"
#include "src/attention/cuda/sm80/short.h"

namespace strobe::cuda {
namespace {

/// Who serves an algorithm on the paths from lowest to highest; the first that reaches the call.
struct Row {
  const char* family;
  Algorithm algorithm;
  Path lowest, highest;
  const Kernels& kernels;
  bool (*reaches_fwd)(const AttentionFwdParams&, const CudaDevice&);
  bool (*reaches_bwd)(const AttentionBwdParams&, const CudaDevice&);

  bool reaches(const AttentionFwdParams& params, const CudaDevice& device) const { return reaches_fwd(params, device); }
  bool reaches(const AttentionBwdParams& params, const CudaDevice& device) const { return reaches_bwd(params, device); }
};

template <class Params>
bool reaches_compiled_head_dims(const Params& params, const CudaDevice&) {
  return params.head_dim <= sm80::largest_head_dim();
}

const Row kRows[] = {
    {"short", Algorithm::kImpFlashAttn, Path::kSm80, Path::kSm90, sm80::short_kernels(), sm80::short_reaches,
     sm80::short_reaches},
    {"general", Algorithm::kImpFlashAttn, Path::kSm80, Path::kSm90, sm80::imp_flash_kernels(),
     reaches_compiled_head_dims<AttentionFwdParams>, reaches_compiled_head_dims<AttentionBwdParams>},
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

/// STROBE_CUDA_FAMILY=general leaves the others out, so that tests and measurements reach it at every length.
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
  bool on_path = false;
  for (const Row& row : kRows) {
    if (row.algorithm != params.algorithm || device.path < row.lowest || device.path > row.highest) continue;
    on_path = true;
    if (!wanted(row)) continue;
    if (row.reaches(params, device)) return row.kernels;
  }
  if (on_path) {
    throw Error("head_dim: expected at most " + std::to_string(sm80::largest_head_dim()) + " in this build, got " +
                std::to_string(params.head_dim));
  }
  throw Error(std::string("algorithm: this build has no CUDA kernels of ") + name(params.algorithm) + " for the path " +
              std::string(name(device.path)));
}

}  // namespace

const Kernels& kernels(const AttentionFwdParams& params) { return find(params); }
const Kernels& kernels(const AttentionBwdParams& params) { return find(params); }

}  // namespace strobe::cuda
