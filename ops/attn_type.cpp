#include "ops/attn_type.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "ops/nearest_name.h"

namespace strobe::ops {
AttnType parse_attn_type(std::string_view name) {
  const auto found = std::find(kAttnTypeNames.begin(), kAttnTypeNames.end(), name);
  if (found != kAttnTypeNames.end()) return static_cast<AttnType>(found - kAttnTypeNames.begin());
  const std::string near = nearest_name(name, {kAttnTypeNames.begin(), kAttnTypeNames.end()});
  TORCH_CHECK(false, "strobe::attention: attn_type: expected dotscale, flash_attn or imp_flash_attn, found \"", name,
              "\"", near.empty() ? "" : "; did you mean \"" + near + "\"?");
}

}  // namespace strobe::ops
