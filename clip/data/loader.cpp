#include "clip/data/loader.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <tuple>

#include "clip/data/prefetcher.h"
#include "clip/image/transform.h"

namespace strobe::clip {
namespace internal {
namespace {

/// How many stand-ins in a row may be unreadable before the data is taken to be broken altogether.
constexpr int64_t kMaxAttempts = 100;

/// What could not be read for a slot of a batch; ordered as the slots and their stand-ins are.
struct Skip {
  int64_t slot;
  int64_t attempt;
  int64_t sample;
  std::string key;
  std::string why;
};

at::Tensor allocate(at::IntArrayRef sizes, at::ScalarType dtype, bool pinned) {
  return at::empty(sizes, at::TensorOptions(dtype).pinned_memory(pinned));
}

uint8_t* pixels_of(const at::Tensor& images, int64_t slot) {
  return images.mutable_data_ptr<uint8_t>() + slot * images.stride(0);
}

/// Reports each sample once, in the order of the slots.
class SkipReport {
 public:
  explicit SkipReport(OnSkip on_skip) : on_skip_(std::move(on_skip)) {}

  void report(std::vector<Skip> skips) {
    std::sort(skips.begin(), skips.end(),
              [](const Skip& a, const Skip& b) { return std::tie(a.slot, a.attempt) < std::tie(b.slot, b.attempt); });
    for (const Skip& skip : skips) {
      if (reported_.insert(skip.sample).second && on_skip_) on_skip_(skip.key, skip.why);
    }
  }
  int64_t count() const { return static_cast<int64_t>(reported_.size()); }

 private:
  OnSkip on_skip_;
  std::set<int64_t> reported_;
};

}  // namespace

class PairProducer {
 public:
  struct Batch {
    PairBatch data;
    std::unique_ptr<std::mutex> mutex = std::make_unique<std::mutex>();
    std::vector<Skip> skips;
  };

  PairProducer(const PairDataset& dataset, Tokenize tokenize, const PairLoaderOptions& options)
      : dataset_(&dataset),
        tokenize_(std::move(tokenize)),
        options_(options),
        sampler_({dataset.num_pairs(), options.batch_size, options.world_size, options.seed, options.epoch}) {
    if (options.rank < 0 || options.rank >= options.world_size || options.start_batch < 0) {
      throw Error(
          fmt::format("loader: rank {} of {}, first batch {}", options.rank, options.world_size, options.start_batch));
    }
  }

  const Sampler& sampler() const { return sampler_; }
  int64_t begin() const { return std::min(options_.start_batch, end()); }
  int64_t end() const { return sampler_.num_batches(); }
  int64_t slots(int64_t) const { return options_.batch_size; }

  Batch allocate(int64_t) const {
    const int64_t batch = options_.batch_size, side = options_.resolution;
    Batch out;
    out.data.images = internal::allocate({batch, side, side, 3}, at::kByte, options_.pin_memory);
    out.data.texts = internal::allocate({batch, options_.context_length}, at::kLong, options_.pin_memory);
    out.data.lengths = internal::allocate({batch}, at::kInt, options_.pin_memory);
    out.data.samples.resize(static_cast<std::size_t>(batch));
    return out;
  }

  void fill(Batch& batch, int64_t number, int64_t slot) const {
    const int64_t position = number * options_.batch_size + slot;
    const int64_t attempts = std::min(sampler_.padded_size(), kMaxAttempts);
    std::string why;
    for (int64_t attempt = 0; attempt < attempts; ++attempt) {
      const int64_t index = attempt == 0 ? sampler_.padded_index(options_.rank, position)
                                         : sampler_.substitute(options_.rank, position, attempt);
      const int64_t sample = sampler_.sample(index);
      std::string key = std::to_string(sample);
      try {
        const Pair pair = dataset_->pair(sample);
        key = id_text(pair.image_id);
        fill(batch.data, slot, index, pair);
        batch.data.samples[static_cast<std::size_t>(slot)] = sample;
        return;
      } catch (const Error& error) {
        why = error.what();
        const std::lock_guard lock(*batch.mutex);
        batch.skips.push_back({slot, attempt, sample, std::move(key), why});
      }
    }
    throw DataError(fmt::format("none of {} samples tried in a row can be read; the last: {}", attempts, why));
  }

 private:
  void fill(PairBatch& batch, int64_t slot, int64_t index, const Pair& pair) const {
    const Image image = decode_image(dataset_->image(pair));
    if (options_.augment) {
      const AugmentDraws draws = draw_augmentation(options_.seed, static_cast<uint64_t>(options_.epoch),
                                                   static_cast<uint64_t>(index), image.width, image.height);
      augment_image(image, draws, options_.resolution, pixels_of(batch.images, slot));
    } else {
      transform_image(image, options_.resolution, pixels_of(batch.images, slot));
    }
    batch.lengths.mutable_data_ptr<int32_t>()[slot] =
        tokenize_(pair.text, batch.texts.mutable_data_ptr<int64_t>() + slot * options_.context_length);
  }

  const PairDataset* dataset_;
  Tokenize tokenize_;
  PairLoaderOptions options_;
  Sampler sampler_;
};

class ImageProducer {
 public:
  struct Batch {
    ImageBatch data;
    std::vector<char> usable;  // [B]
    std::unique_ptr<std::mutex> mutex = std::make_unique<std::mutex>();
    std::vector<Skip> skips;
  };

  ImageProducer(const ImageDataset& dataset, const ImageLoaderOptions& options)
      : dataset_(&dataset), options_(options) {
    if (options_.end < 0) options_.end = dataset.size();
    if (options_.batch_size < 1 || options_.begin < 0 || options_.begin > options_.end ||
        options_.end > dataset.size()) {
      throw Error(fmt::format("loader: images {} to {} of {} in batches of {}", options_.begin, options_.end,
                              dataset.size(), options_.batch_size));
    }
  }

  int64_t begin() const { return 0; }
  int64_t end() const { return (options_.end - options_.begin + options_.batch_size - 1) / options_.batch_size; }
  int64_t slots(int64_t number) const {
    return std::min(options_.batch_size, options_.end - options_.begin - number * options_.batch_size);
  }

  Batch allocate(int64_t number) const {
    const int64_t side = options_.resolution;
    Batch out;
    out.data.images = internal::allocate({slots(number), side, side, 3}, at::kByte, options_.pin_memory);
    out.data.keys.resize(static_cast<std::size_t>(slots(number)));
    out.usable.resize(out.data.keys.size());
    return out;
  }

  void fill(Batch& batch, int64_t number, int64_t slot) const {
    const int64_t index = options_.begin + number * options_.batch_size + slot;
    const std::string& key = dataset_->key(index);
    try {
      transform_image(decode_image(dataset_->image(index)), options_.resolution, pixels_of(batch.data.images, slot));
      batch.data.keys[static_cast<std::size_t>(slot)] = key;
      batch.usable[static_cast<std::size_t>(slot)] = 1;
    } catch (const Error& error) {
      const std::lock_guard lock(*batch.mutex);
      batch.skips.push_back({slot, 0, index, key, error.what()});
    }
  }

  /// Without the slots that stayed empty.
  static ImageBatch usable_part(Batch&& batch) {
    if (batch.skips.empty()) return std::move(batch.data);
    ImageBatch out;
    std::vector<int64_t> slots;
    for (std::size_t i = 0; i < batch.usable.size(); ++i) {
      if (!batch.usable[i]) continue;
      slots.push_back(static_cast<int64_t>(i));
      out.keys.push_back(std::move(batch.data.keys[i]));
    }
    out.images = batch.data.images.index_select(0, at::tensor(slots, at::kLong));
    return out;
  }

 private:
  const ImageDataset* dataset_;
  ImageLoaderOptions options_;
};

/// A loader's threads and what it has to say about the samples.
template <typename Producer>
struct Loading {
  Loading(Producer producer, const LoaderOptions& options, OnSkip on_skip)
      : report(std::move(on_skip)), prefetcher(std::move(producer), options.workers, options.batches_ahead) {}

  std::optional<typename Producer::Batch> next() {
    auto batch = prefetcher.next();
    if (batch) report.report(batch->skips);
    return batch;
  }

  SkipReport report;
  Prefetcher<Producer> prefetcher;
};

}  // namespace internal

PairLoader::PairLoader(const PairDataset& dataset, Tokenize tokenize, const PairLoaderOptions& options, OnSkip on_skip)
    : loading_(std::make_unique<internal::Loading<internal::PairProducer>>(
          internal::PairProducer(dataset, std::move(tokenize), options), options, std::move(on_skip))) {}
PairLoader::~PairLoader() = default;

std::optional<PairBatch> PairLoader::next() {
  auto batch = loading_->next();
  if (!batch) return std::nullopt;
  return std::move(batch->data);
}

int64_t PairLoader::num_batches() const { return loading_->prefetcher.producer().end(); }
int64_t PairLoader::num_samples() const { return loading_->prefetcher.producer().sampler().padded_size(); }
int64_t PairLoader::num_skipped() const { return loading_->report.count(); }

ImageLoader::ImageLoader(const ImageDataset& dataset, const ImageLoaderOptions& options, OnSkip on_skip)
    : loading_(std::make_unique<internal::Loading<internal::ImageProducer>>(internal::ImageProducer(dataset, options),
                                                                            options, std::move(on_skip))) {}
ImageLoader::~ImageLoader() = default;

std::optional<ImageBatch> ImageLoader::next() {
  auto batch = loading_->next();
  if (!batch) return std::nullopt;
  return internal::ImageProducer::usable_part(*std::move(batch));
}

int64_t ImageLoader::num_batches() const { return loading_->prefetcher.producer().end(); }
int64_t ImageLoader::num_skipped() const { return loading_->report.count(); }

}  // namespace strobe::clip
