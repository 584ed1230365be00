// The contrastive loss over the batches of all processes, each of which computes its own part of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "train/distributed/communicator.h"

namespace strobe::clip {

/// One process's pairs, and the features of all [n*B, D], in the order of the ranks.
struct GatheredPairs {
  at::Tensor image, text, scale;     // [B, D], [B, D], 0-d
  at::Tensor all_images, all_texts;  // constants
};

struct GatheredLoss {
  at::Tensor loss;                          // 0-d, the same on all processes
  at::Tensor image_to_text, text_to_image;  // 0-d: shares of all pairs, likewise; undefined unless asked for
};

/// (CE over rows + CE over columns) / 2 of the logits of all pairs, scale * all_images @ all_texts^T. Of the [n*B, n*B]
/// logits a process computes the rows of its images and the columns of its texts, forward and backward: for their
/// gradients it needs of the others only the logarithms of the softmaxes' sums. For all processes together, forward.
///
/// The gradients of image and text are those of the loss, times `factor`; the scale's is this process's part times n,
/// so that its mean over the processes is that of the loss.
GatheredLoss gathered_loss(const GatheredPairs& pairs, double factor, bool accuracy,
                           const std::shared_ptr<train::Communicator>& ranks);

}  // namespace strobe::clip
