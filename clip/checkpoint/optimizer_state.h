// The optimizer's state in the original's checkpoints: two groups, parameters by number, and an order that depends on
// whether the run used FlashAttention's layers. Here is the one place that maps numbers to names.
#pragma once

#include <string_view>

#include "train/value.h"

namespace strobe::clip {

/// The original's rule (training/main.py): no weight decay where the name contains "bn", "ln", "bias" or "logit_scale".
/// A name counts with its "module.", which adds none of these.
bool has_weight_decay(std::string_view name);

/// `saved`: AdamW's state_dict as a file has it, of the model with the weights `state`. With "param_names" in the
/// groups those count. Else the numbers follow named_parameters() of the original's model, in its plain or its
/// FlashAttention form, whole or with a frozen vision tower, with or without a pooler, whichever has as many parameters
/// of these shapes. Packed queries, keys and values are split (views). Returns the same state under the plain form's
/// names:
/// {"state", "param_groups": [no decay, decay]}, each in the original's order and with "param_names", the options of
/// the first group of `saved`, steps as 0-d fp32 tensors. Throws CheckpointError saying what does not fit.
train::Dict normalise_optimizer(const train::Dict& saved, const train::Dict& state);

/// The state of `saved` (groups with "param_names") under the groups and numbers of `own` (the state_dict() of the
/// optimizer that will load it), matched by name; `saved` may know more. Throws CheckpointError listing the parameters
/// of `own` that `saved` does not know.
train::Dict match_optimizer(const train::Dict& saved, const train::Dict& own);

}  // namespace strobe::clip
