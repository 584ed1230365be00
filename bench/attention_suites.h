// Lists of attention cases by name, for `strobe bench attention --suite`.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "bench/attention.h"

namespace strobe::bench {

inline constexpr std::array<const char*, 3> kAttentionSuites = {"design", "memory", "million"};

/// The cases, and what the suite sets of the other options.
///
/// "design": the shapes of the models that strobe trains. On a GPU: ViT-B/32, B/16, L/14, H/14, L/14@336 and the text
/// tower at Chinese-CLIP's batches, translation at 32 sentences of 200 to 2000 tokens, causal and not, and 16,384
/// tokens of width 2048 at head dims 64 and 128 and lengths of 2,048 to 16,384, causal and not. On the CPU some of them
/// at small batches, in fp32 and bf16.
///
/// "memory": one sequence of 8 heads of 64, four times as long from case to case, for the peak memory by length; few
/// repetitions.
///
/// "million": 1,048,576 tokens of 8 heads of 64, by imp_flash_attn alone unless another is named. One repetition. On
/// the CPU it takes hours.
///
/// `dtype` replaces the suite's own. Throws c10::Error for an unknown name.
AttentionBenchOptions attention_suite(const std::string& name, at::Device device,
                                      std::optional<at::ScalarType> dtype = std::nullopt);

}  // namespace strobe::bench
