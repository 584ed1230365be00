#include "clip/evaluation/extract.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "clip/data/dataset.h"
#include "clip/evaluation/features.h"
#include "train/atomic_file.h"

namespace strobe::clip {
namespace {

class FeatureFile {
 public:
  FeatureFile(const std::filesystem::path& file, const char* id_key) : file_(file), id_key_(id_key) {}

  void write(const std::vector<Id>& ids, const at::Tensor& features) {
    const at::Tensor values = features.cpu().contiguous();
    const int64_t dim = values.size(1);
    const float* row = values.const_data_ptr<float>();
    std::string lines;
    for (const Id& id : ids) {
      append_feature_line(lines, id_key_, id, row, dim);
      row += dim;
    }
    file_.write(lines);
    count_ += static_cast<int64_t>(ids.size());
  }
  int64_t commit() {
    file_.commit();
    return count_;
  }

 private:
  train::AtomicFile file_;
  const char* id_key_;
  int64_t count_ = 0;
};

Id id_of_value(const train::Value& value) { return {id_text(value), std::holds_alternative<int64_t>(value.data)}; }

}  // namespace

Extracted extract_text_features(Embedder& embedder, const BertTokenizer& tokenizer, const TextExtraction& options,
                                const OnProgress& on_progress) {
  std::vector<Id> ids;
  std::vector<std::string> texts;
  read_texts(options.texts, /*require_images=*/false, [&](TextRecord&& record, int64_t) {
    ids.push_back(id_of_value(record.text_id));
    texts.push_back(normalize_caption(record.text));
  });
  FeatureFile file(options.output, "text_id");
  const auto total = static_cast<int64_t>(texts.size());
  for (int64_t begin = 0; begin < total; begin += options.batch_size) {
    const int64_t end = std::min(begin + options.batch_size, total);
    const std::vector<std::string> batch(texts.begin() + begin, texts.begin() + end);
    file.write({ids.begin() + begin, ids.begin() + end},
               embedder.texts(tokenizer.tokenize(batch, options.context_length)));
    on_progress(end, total);
  }
  return {file.commit(), 0};
}

Extracted extract_image_features(Embedder& embedder, const ImageExtraction& options, const OnSkip& on_skip,
                                 const OnProgress& on_progress) {
  const ImageDataset dataset(options.images);
  ImageLoaderOptions loading;
  loading.resolution = static_cast<int>(embedder.resolution());
  loading.workers = options.workers;
  loading.pin_memory = embedder.device().is_cuda();
  loading.batch_size = options.batch_size;
  ImageLoader loader(dataset, loading, on_skip);
  FeatureFile file(options.output, "image_id");
  int64_t done = 0;
  while (std::optional<ImageBatch> batch = loader.next()) {
    done = std::min(done + options.batch_size, dataset.size());
    if (!batch->keys.empty()) {
      std::vector<Id> ids;
      for (std::string& key : batch->keys) ids.push_back(id_of_key(std::move(key)));
      file.write(ids, embedder.images(batch->images));
    }
    on_progress(done, dataset.size());
  }
  return {file.commit(), loader.num_skipped()};
}

}  // namespace strobe::clip
