// What stands behind a row of the dispatch table: one algorithm on one kind of device.
#pragma once

#include <cstddef>

#include "strobe/attention.h"

namespace strobe {

/// The params have passed validation.
struct Kernels {
  std::size_t (*fwd_workspace_size)(const AttentionFwdParams&);
  void (*fwd)(const AttentionFwdParams&);
  std::size_t (*bwd_workspace_size)(const AttentionBwdParams&);
  void (*bwd)(const AttentionBwdParams&);
};

}  // namespace strobe
