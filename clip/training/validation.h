// What a validation of a CLIP finds: the original's figures within batches, and recall over the whole set.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "clip/data/dataset.h"
#include "clip/model/clip.h"
#include "clip/training/batch_source.h"
#include "train/distributed/communicator.h"
#include "train/logger.h"

namespace strobe::clip {

/// Which image and which text each pair has, both numbered from 0 in the order in which they first come.
struct PairIds {
  std::vector<int64_t> images, texts;  // of each pair
  int64_t num_images = 0, num_texts = 0;
};

/// Pairs with the same id have the same image or text. Throws DataError.
PairIds pair_ids(const PairDataset& dataset);

/// Shares in percent.
struct Recall {
  double at1 = 0.0, at5 = 0.0, at10 = 0.0;
  double mean() const { return (at1 + at5 + at10) / 3; }
};

struct ValidationResult {
  double loss = 0.0;           // in-batch, per sample
  double image_to_text = 0.0;  // in-batch accuracy, a share
  double text_to_image = 0.0;
  int64_t batch_size = 0;       // of one process
  Recall text_retrieves_image;  // among all images of the set
  Recall image_retrieves_text;
  int64_t images = 0, texts = 0;  // that were read
  double mean_recall() const { return (text_retrieves_image.mean() + image_retrieves_text.mean()) / 2; }
};

/// Goes through the batches of all processes together.
class Validator {
 public:
  Validator(std::unique_ptr<BatchSource> batches, PairIds ids, std::shared_ptr<train::Logger> logger);

  /// Eval mode and autocast are set. Every process gets the same result. Logs how far it has come every 100 batches.
  ValidationResult run(Clip& model, train::Communicator& ranks);

 private:
  std::unique_ptr<BatchSource> batches_;
  PairIds ids_;
  std::shared_ptr<train::Logger> logger_;
};

}  // namespace strobe::clip
