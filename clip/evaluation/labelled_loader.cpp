#include "clip/evaluation/labelled_loader.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "clip/data/error.h"
#include "clip/data/prefetcher.h"
#include "clip/image/transform.h"

namespace strobe::clip {
namespace {

constexpr int kBatchesAhead = 2;

std::string read_file(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) throw DataError("cannot be read");
  return bytes;
}

class Producer {
 public:
  using Batch = LabelledBatch;

  Producer(const ImageFolder& folder, const LabelledImageLoader::Options& options)
      : folder_(folder), options_(options) {}

  int64_t begin() const { return 0; }
  int64_t end() const { return (size() + options_.batch_size - 1) / options_.batch_size; }
  int64_t slots(int64_t batch) const { return std::min(options_.batch_size, size() - batch * options_.batch_size); }

  Batch allocate(int64_t batch) const {
    const int64_t count = slots(batch);
    const auto first = folder_.images.begin() + batch * options_.batch_size;
    Batch result{
        at::zeros({count, options_.resolution, options_.resolution, 3}, at::kByte), {}, {}, {first, first + count}};
    for (const LabelledImage& image : result.files) result.labels.push_back(image.label);
    result.errors.resize(static_cast<std::size_t>(count));
    return result;
  }

  void fill(Batch& batch, int64_t, int64_t slot) const {
    const auto i = static_cast<std::size_t>(slot);
    try {
      const Image image = to_rgb(decode_image(read_file(batch.files[i].file)));
      transform_image(image, options_.resolution,
                      batch.images.mutable_data_ptr<uint8_t>() + slot * options_.resolution * options_.resolution * 3);
    } catch (const Error& error) {
      batch.errors[i] = error.what();
    }
  }

 private:
  int64_t size() const { return static_cast<int64_t>(folder_.images.size()); }

  ImageFolder folder_;
  LabelledImageLoader::Options options_;
};

}  // namespace

struct LabelledImageLoader::Impl {
  internal::Prefetcher<Producer> prefetcher;
};

LabelledImageLoader::LabelledImageLoader(const ImageFolder& folder, const Options& options)
    : impl_(new Impl{{Producer(folder, options), options.workers, kBatchesAhead}}) {}
LabelledImageLoader::~LabelledImageLoader() = default;

std::optional<LabelledBatch> LabelledImageLoader::next() { return impl_->prefetcher.next(); }

}  // namespace strobe::clip
