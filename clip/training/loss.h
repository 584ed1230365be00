// The contrastive loss of CLIP (Radford et al. 2021, figure 3) over the batches of all processes, and the distillation
// that Chinese-CLIP adds.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "clip/training/feature_gather.h"
#include "train/distributed/communicator.h"

namespace strobe::clip {

struct LossOptions {
  bool aggregate = true;          // contrast with the features of all processes, else of the own batch alone
  bool gather_with_grad = false;  // the others' features have gradients too
  bool local_loss = false;        // the loss is that of the own rows against all columns
  bool accuracy = false;          // count it
  double kd_weight = 0.5;         // of the distillation
};

/// One process's batch. Features are of length 1, [B, D] and [B, D]; scale is 0-d: exp(logit_scale).
struct PairFeatures {
  at::Tensor image, text, scale;
  at::Tensor teacher;                     // [B, D'] of the teacher's image tower; undefined: no distillation
  std::shared_ptr<FeatureGather> images;  // `image` on its way already (begin_image_gather); null: it begins here
};

struct PairLoss {
  at::Tensor loss;  // 0-d, at least fp32
  at::Tensor
      image_to_text;  // 0-d: share of the images whose own text has the largest logit; undefined unless asked for
  at::Tensor text_to_image;
};

/// Sends the images' features, so that they are there when the texts' are computed. Null where nothing is gathered.
std::shared_ptr<FeatureGather> begin_image_gather(const at::Tensor& image, const LossOptions& options,
                                                  const std::shared_ptr<train::Communicator>& ranks);

/// (CE over rows + CE over columns) / 2 of scale * image @ text^T, plus kd_weight times the distillation's loss. The
/// similarities are computed in fp32 at least, whatever autocast says.
///
/// The loss is that of the whole matrix, as in the original, of which every process computes its part
/// (gathered_loss.h). By default, as in the original, only a process's own rows and columns have gradients: averaged
/// over n processes those of the encoders are 1/n of the whole loss's. With gather_with_grad they are the whole loss's,
/// with local_loss too, whose mean over the processes is the whole loss.
PairLoss pair_loss(const PairFeatures& features, const LossOptions& options,
                   const std::shared_ptr<train::Communicator>& ranks);

/// 1 - the mean cosine between the rows of `teacher` [B, D'] and those of `student` [B, D], resized bilinearly to D'.
at::Tensor distillation_loss(const at::Tensor& teacher, const at::Tensor& student);

}  // namespace strobe::clip
