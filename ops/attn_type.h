// The three attention types by name.
#pragma once

#include <array>
#include <string_view>

namespace strobe::ops {

enum class AttnType { kDotscale, kFlashAttn, kImpFlashAttn };

inline constexpr std::array<std::string_view, 3> kAttnTypeNames = {"dotscale", "flash_attn", "imp_flash_attn"};

/// Throws c10::Error with the list and the nearest name.
AttnType parse_attn_type(std::string_view name);

}  // namespace strobe::ops
