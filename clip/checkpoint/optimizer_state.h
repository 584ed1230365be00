// The optimizer's state in the original's checkpoints: two groups, parameters by number, and an order that depends on
// whether the run used FlashAttention's layers. Here is the one place that maps numbers to names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "clip/checkpoint/load.h"
#include "train/value.h"

namespace strobe::clip {

/// The original's rule (training/main.py): no weight decay where the name contains "bn", "ln", "bias" or "logit_scale".
/// A name counts with its "module.", which adds none of these.
bool has_weight_decay(std::string_view name);

/// `saved`: AdamW's state_dict as a file has it, of a model with these towers (bare names). With "param_names" in the
/// groups those count. Else the numbers follow named_parameters() of the original's model, in its plain or its
/// FlashAttention form, whole or with a frozen vision tower, whichever has as many parameters of these shapes. Packed
/// query, key and value are split. Returns the same state under the plain form's names: {"state", "param_groups": [no
/// decay, decay]}, each group with "param_names", steps as 0-d fp32 tensors. Throws CheckpointError saying what does
/// not fit.
train::Dict normalise_optimizer(const train::Dict& saved, const Towers& towers);

/// The state of `saved` (groups with "param_names") under the groups of `own` (the state_dict() of the optimizer that
/// will load it), matched by name. Throws CheckpointError listing parameters of `own` that `saved` does not know.
train::Dict match_optimizer(const train::Dict& saved, const train::Dict& own);

}  // namespace strobe::clip
