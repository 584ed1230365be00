// What makes a call wrong on every device and for every kernel: the rules of strobe/attention.h in one place.
#pragma once

#include <string>
#include <string_view>

#include "strobe/attention.h"

namespace strobe {

/// "attention_forward" or "attention_backward".
std::string_view operation(const AttentionFwdParams& params);
std::string_view operation(const AttentionBwdParams& params);

/// Reasons, one a line ("attention_forward: head_dim: expected a multiple of 8 up to 128, or 256, got 12"), or an empty
/// string. Follows no pointer; a null tensor is no reason.
std::string invalid_params(const AttentionFwdParams& params);
std::string invalid_params(const AttentionBwdParams& params);

/// For params without invalid_params: what a real call needs besides. Tensors that have elements are there, and on the
/// CPU, where they can be read, cu_seqlens are what the header says.
std::string invalid_pointers(const AttentionFwdParams& params);
std::string invalid_pointers(const AttentionBwdParams& params);

/// A line of the above.
std::string reason(std::string_view operation, std::string_view argument, std::string_view expected,
                   std::string_view found);

}  // namespace strobe
