#include "clip/training/loader_batches.h"

#include <utility>

#include "clip/data/error.h"
#include "clip/image/transform.h"

namespace strobe::clip {

LoaderBatches::LoaderBatches(std::shared_ptr<const PairDataset> dataset, Tokenize tokenize, const Options& options,
                             OnSkip on_skip)
    : dataset_(std::move(dataset)), tokenize_(std::move(tokenize)), options_(options), on_skip_(std::move(on_skip)) {}

int64_t LoaderBatches::begin_epoch(int64_t epoch) {
  loader_.reset();
  options_.loader.epoch = options_.shuffle_anew ? epoch - 1 : 0;
  const int64_t global = options_.loader.batch_size * options_.loader.world_size;
  return samples_per_epoch() / global;
}

/// Whole batches on every rank, as Sampler pads them.
int64_t LoaderBatches::samples_per_epoch() const {
  const int64_t global = options_.loader.batch_size * options_.loader.world_size;
  return (dataset_->num_pairs() + global - 1) / global * global;
}

Batch LoaderBatches::batch(int64_t index) {
  if (!loader_ || next_ != index) {
    loader_.reset();
    options_.loader.start_batch = index;
    loader_ = std::make_unique<PairLoader>(*dataset_, tokenize_, options_.loader, on_skip_);
  }
  next_ = index + 1;
  std::optional<PairBatch> read = loader_->next();
  if (!read) throw DataError("loader: expected batch " + std::to_string(index) + ", found the end of the epoch");
  const auto move = [&](const at::Tensor& tensor) { return tensor.to(options_.device, /*non_blocking=*/true); };
  return {normalize_images(move(read->images), options_.format), move(read->texts), read->lengths.to(at::kLong),
          std::move(read->samples)};
}

}  // namespace strobe::clip
