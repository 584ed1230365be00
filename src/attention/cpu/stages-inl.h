// The kernels of one instruction set: STROBE_ISA names it and its vector header has been included. Only plain functions
// leave this file, and nothing here is shared with another instruction set's translation unit, so that the linker
// cannot put code of a higher one where a lower one runs.
#pragma once

#include "src/attention/cpu/attention_bwd-inl.h"
#include "src/attention/cpu/attention_fwd-inl.h"
#include "src/attention/cpu/flash_attn_bwd-inl.h"
#include "src/attention/cpu/flash_attn_fwd-inl.h"
#include "src/attention/cpu/stages.h"

namespace strobe::cpu::STROBE_ISA {

template <class Kernel, class Params>
int64_t scratch_bytes(const Params& p) {
  return Kernel(p, nullptr, nullptr).scratch_bytes();
}

template <class Kernel, class Params>
void run_tasks(const Params& p, int phase, int64_t begin, int64_t end, void* shared, void* scratch) {
  Kernel kernel(p, shared, scratch);
  for (int64_t task = begin; task < end; ++task) kernel.run(phase, task);
}

template <class Kernel, class Params>
inline constexpr Stage<Params> kStage{Kernel::kPhases, &Kernel::tasks, &Kernel::shared_bytes,
                                      &scratch_bytes<Kernel, Params>, &run_tasks<Kernel, Params>};

template <class Io>
inline constexpr Stages kStages{
    {kStage<FlashAttnFwd<Io>, AttentionFwdParams>, kStage<FlashAttnBwd<Io>, AttentionBwdParams>},
    {kStage<ImpFlashAttnFwd<Io>, AttentionFwdParams>, kStage<ImpFlashAttnBwd<Io>, AttentionBwdParams>}};

}  // namespace strobe::cpu::STROBE_ISA
