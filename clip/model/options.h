// What the towers of a Clip have in common beside their sizes.
#pragma once

#include <string>

namespace strobe::clip {

struct ClipOptions {
  std::string attn_type = "dotscale";  // "dotscale", "flash_attn" or "imp_flash_attn"
  bool grad_checkpointing = false;     // of every ViT block and BERT layer (nn/checkpointing.h)
};

}  // namespace strobe::clip
