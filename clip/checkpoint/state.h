// State dicts under one set of names: bare, the plain form of the attention.
#pragma once

#include <string>

#include "train/value.h"

namespace strobe::clip {

/// The tensors of a state dict under their bare names: without "module." (looked for key by key), without
/// "bert.pooler", FlashAttention's layers under the names of the plain ones (queries, keys and values as views of the
/// packed tensor), TensorFlow's LayerNorm names ("gamma", "beta") as torch's. Throws CheckpointError for a value that
/// is no tensor, or two tensors of one name.
train::Dict normalise_state(const train::Dict& state);

/// The tensors below the attributes of a TorchScript module under dotted names. A dict of tensors stays as it is.
train::Dict flatten_modules(const train::Dict& root);

/// Float tensors as fp32, others as they are; those that are fp32 already are not copied.
train::Dict in_float32(const train::Dict& state);

}  // namespace strobe::clip
