// Batches prepared by threads ahead of the consumer, in an order and with contents that do not depend on their number.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clip/data/dataset.h"
#include "clip/data/sampler.h"

namespace strobe::clip {

/// Writes the ids of one text, padded with 0 to the loader's context length, and returns how many are no padding.
/// Called from several threads at once.
using Tokenize = std::function<int32_t(const std::string& text, int64_t* ids)>;

/// Told of a sample that cannot be used: the image's key (or the pair's number where that is what cannot be read) and
/// why. Called from next(), in the order of the samples.
using OnSkip = std::function<void(const std::string& key, const std::string& why)>;

struct LoaderOptions {
  int resolution = 224;
  int64_t context_length = 52;
  int workers = 1;        // threads, at least one
  int batches_ahead = 2;  // prepared while the consumer works, at least one
  bool pin_memory = false;
};

struct PairLoaderOptions : LoaderOptions {
  int64_t batch_size = 1;  // of this rank
  int64_t rank = 0;
  int64_t world_size = 1;
  uint64_t seed = 123;
  int64_t epoch = 0;        // of the order; validation takes 0
  int64_t start_batch = 0;  // the first batch to give
  bool augment = false;
};

struct PairBatch {
  at::Tensor images;             // uint8 [B, R, R, 3], for normalize_images on the training's device
  at::Tensor texts;              // int64 [B, context_length]
  at::Tensor lengths;            // int32 [B], on the CPU: tokens of each text from [CLS] to [SEP]
  std::vector<int64_t> samples;  // [B], the pairs' numbers
};

namespace internal {
class PairProducer;
class ImageProducer;
template <typename Producer>
struct Loading;
}  // namespace internal

/// One epoch (from start_batch on) of one rank. All batches are full, on all ranks alike: a sample that cannot be read
/// (DataError, ImageError or another strobe::Error, also of the tokenizer) is reported once, counted, and replaced by
/// one from half an epoch further on (Sampler::substitute). Where none can be read next() throws DataError; other
/// exceptions of a thread come out of next() as they are.
class PairLoader {
 public:
  PairLoader(const PairDataset& dataset, Tokenize tokenize, const PairLoaderOptions& options, OnSkip on_skip = {});
  ~PairLoader();  // stops the threads, also in the middle of an epoch

  std::optional<PairBatch> next();  // nothing: the epoch has ended
  int64_t num_batches() const;      // of the whole epoch
  int64_t num_samples() const;      // of the whole epoch over all ranks, padding included
  int64_t num_skipped() const;      // distinct pairs, so far

 private:
  std::unique_ptr<internal::Loading<internal::PairProducer>> loading_;
};

struct ImageLoaderOptions : LoaderOptions {
  int64_t batch_size = 1;
  int64_t begin = 0;  // the images [begin, end) of the database
  int64_t end = -1;   // -1: to the last
};

struct ImageBatch {
  at::Tensor images;              // uint8 [B, R, R, 3]
  std::vector<std::string> keys;  // [B]
};

/// Images in the database's order, for evaluation. What cannot be read is reported, counted and left out, so a batch
/// may be short or even empty.
class ImageLoader {
 public:
  ImageLoader(const ImageDataset& dataset, const ImageLoaderOptions& options, OnSkip on_skip = {});
  ~ImageLoader();

  std::optional<ImageBatch> next();
  int64_t num_batches() const;
  int64_t num_skipped() const;

 private:
  std::unique_ptr<internal::Loading<internal::ImageProducer>> loading_;
};

}  // namespace strobe::clip
