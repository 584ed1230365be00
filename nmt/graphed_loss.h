// The training loss, whose forward and backward are replayed as a CUDA graph where the batch's shape has been met
// before.
#pragma once

#include <memory>

#include "nmt/batching.h"
#include "nmt/transformer.h"
#include "train/step_graphs.h"

namespace strobe::nmt {

class GraphedLoss {
 public:
  /// The model stays where it is, on a CUDA device. See train::StepGraphs for what happens to the stream.
  GraphedLoss(Transformer model, double label_smoothing);

  /// model->loss() of a batch of make_recurring_batch. Large ones, whose kernels take longer than their launches, are
  /// computed as ever.
  at::Tensor operator()(const Batch& batch);

 private:
  Transformer model_;
  double label_smoothing_;
  train::StepGraphs graphs_;
};

}  // namespace strobe::nmt
