// The batches of a data folder (clip/data/loader.h), on the training's device.
#pragma once

#include <memory>

#include "clip/data/loader.h"
#include "clip/training/batch_source.h"

namespace strobe::clip {

class LoaderBatches : public BatchSource {
 public:
  struct Options {
    PairLoaderOptions loader;  // its epoch and start_batch are set here
    bool shuffle_anew = true;  // each epoch in an order of its own; a validation always has that of epoch 0
    at::Device device = at::kCPU;
    at::MemoryFormat format = at::MemoryFormat::Contiguous;
  };

  /// The loader of `options` runs ahead on threads of its own, from the first batch that is asked for.
  LoaderBatches(std::shared_ptr<const PairDataset> dataset, Tokenize tokenize, const Options& options,
                OnSkip on_skip = {});

  int64_t begin_epoch(int64_t epoch) override;
  Batch batch(int64_t index) override;
  int64_t samples_per_epoch() const override;
  int64_t skipped() const override { return loader_ ? loader_->num_skipped() : 0; }

 private:
  std::shared_ptr<const PairDataset> dataset_;
  Tokenize tokenize_;
  Options options_;
  OnSkip on_skip_;
  std::unique_ptr<PairLoader> loader_;
  int64_t next_ = 0;  // the batch that loader_ gives next
};

}  // namespace strobe::clip
