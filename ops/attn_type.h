// The three attention types by name.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::ops {

enum class AttnType { kDotscale, kFlashAttn, kImpFlashAttn };

inline constexpr std::array<std::string_view, 3> kAttnTypeNames = {"dotscale", "flash_attn", "imp_flash_attn"};

/// Throws c10::Error with the list and the nearest name.
AttnType parse_attn_type(std::string_view name);

/// The candidate nearest to `word` by edit distance, or "" where none is near.
[[gnu::visibility("default")]] std::string nearest_name(std::string_view word,
                                                        const std::vector<std::string>& candidates);

}  // namespace strobe::ops
