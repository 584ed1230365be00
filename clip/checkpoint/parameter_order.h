// The order in which the original's model has its parameters, by which its optimizer's checkpoints count them.
#pragma once

#include <string>
#include <vector>

#include "train/value.h"

namespace strobe::clip {

/// One parameter of the original's model, by the bare names that its parts have in the plain form: one, or those of the
/// query, key and value that lie one after the other in a packed one.
using FileParameter = std::vector<std::string>;

enum class AttentionForm {
  kPlain,
  kFlash,  // --use-flash-attention: BERT's queries, keys and values packed ("attention.self.Wqkv"). A ViT's are packed
           // in both forms, in the same place
};

/// named_parameters() of the model that has the weights of `state` (bare names, plain form).
std::vector<FileParameter> file_parameters(const train::Dict& state, AttentionForm form);

}  // namespace strobe::clip
