// Loss and BLEU of a model on a held-out set.
#pragma once

#include <string>
#include <vector>

#include "nmt/bleu.h"
#include "nmt/checkpoint.h"
#include "nmt/dataset.h"
#include "nmt/translate.h"

namespace strobe::nmt {

struct Evaluation {
  double loss = 0.0;  // cross entropy in nats per target token, eos included, without label smoothing
  Bleu bleu;
  std::vector<std::string> hypotheses;  // in the data's order
};

/// As translate() does, leaves a source of white space alone without a translation. Eval mode, no gradients; the
/// module's mode is put back, parameters and generators are untouched.
Evaluation evaluate(TranslationModel& model, const Dataset& data, const TranslateOptions& options);

}  // namespace strobe::nmt
