#include "clip/training/validation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <unordered_map>
#include <utility>

#include "clip/training/loss.h"
#include "clip/training/recall.h"

namespace strobe::clip {
namespace {

constexpr int64_t kLogInterval = 100;  // batches

/// The features of a whole set, by the numbers of images or texts.
class Features {
 public:
  Features(const std::vector<int64_t>& number_of_pair, int64_t size)
      : number_of_pair_(at::tensor(number_of_pair, at::kLong)), seen_(at::zeros({size}, at::kBool)) {}

  void put(const at::Tensor& samples, const at::Tensor& rows) {
    if (!rows_.defined()) rows_ = at::zeros({seen_.size(0), rows.size(1)}, rows.options().dtype(at::kFloat));
    const at::Tensor numbers = number_of_pair_.index_select(0, samples);
    seen_.index_fill_(0, numbers, true);
    rows_.index_copy_(0, numbers.to(rows.device()), rows.to(at::kFloat));
  }
  const at::Tensor& rows() const { return rows_; }
  int64_t seen() const { return seen_.sum().item<int64_t>(); }
  /// The number that each of these pairs has.
  at::Tensor numbers(const at::Tensor& pairs) const {
    return number_of_pair_.index_select(0, pairs).to(rows_.device());
  }

 private:
  at::Tensor number_of_pair_;  // int64 [pairs]
  at::Tensor seen_, rows_;     // [size], [size, D]
};

/// In-batch loss and accuracies, summed over the samples.
at::Tensor in_batch(const ClipOutput& output, const std::shared_ptr<train::Communicator>& alone) {
  LossOptions options;
  options.aggregate = false;
  options.accuracy = true;
  const PairLoss loss = pair_loss({output.image_features, output.text_features, output.scale, {}, {}}, options, alone);
  const auto count = static_cast<double>(output.image_features.size(0));
  return at::stack({loss.loss, loss.image_to_text, loss.text_to_image}).to(at::kDouble) * count;
}

void broadcast_buffers(const torch::nn::Module& model, train::Communicator& ranks) {
  for (at::Tensor buffer : model.buffers()) ranks.broadcast(buffer);
}

int64_t number_of(std::unordered_map<std::string, int64_t>& numbers, const std::string& id) {
  return numbers.emplace(id, static_cast<int64_t>(numbers.size())).first->second;
}

}  // namespace

PairIds pair_ids(const PairDataset& dataset) {
  std::unordered_map<std::string, int64_t> images, texts;
  PairIds ids;
  for (int64_t i = 0; i < dataset.num_pairs(); ++i) {
    const Pair pair = dataset.pair(i);
    ids.images.push_back(number_of(images, id_text(pair.image_id)));
    ids.texts.push_back(number_of(texts, id_text(pair.text_id)));
  }
  ids.num_images = static_cast<int64_t>(images.size());
  ids.num_texts = static_cast<int64_t>(texts.size());
  return ids;
}

Validator::Validator(std::unique_ptr<BatchSource> batches, PairIds ids, std::shared_ptr<train::Logger> logger)
    : batches_(std::move(batches)), ids_(std::move(ids)), logger_(std::move(logger)) {}

ValidationResult Validator::run(Clip& model, train::Communicator& ranks) {
  const at::NoGradGuard no_grad;
  broadcast_buffers(*model, ranks);
  const auto alone = std::make_shared<train::Communicator>();
  Features images(ids_.images, ids_.num_images), texts(ids_.texts, ids_.num_texts);
  at::Tensor seen_pairs = at::zeros({static_cast<int64_t>(ids_.images.size())}, at::kBool);
  ValidationResult result;
  at::Tensor sums;
  const int64_t count = batches_->begin_epoch(1);
  for (int64_t i = 0; i < count; ++i) {
    const Batch batch = batches_->batch(i);
    const ClipOutput output = model->forward(batch.images, batch.texts, /*mask_ratio=*/0.0, batch.lengths);
    const at::Tensor own = in_batch(output, alone);
    sums = sums.defined() ? sums + own : own;
    result.batch_size = batch.texts.size(0);
    const at::Tensor samples = ranks.all_gather(at::tensor(batch.samples, at::kLong)).flatten();
    images.put(samples, ranks.all_gather(output.image_features).flatten(0, 1));
    texts.put(samples, ranks.all_gather(output.text_features).flatten(0, 1));
    seen_pairs.index_fill_(0, samples, true);
    if ((i + 1) % kLogInterval == 0) logger_->info(fmt::format("Evaluated {}/{} batches...", i + 1, count));
  }
  ranks.sum(sums);
  const at::Tensor means = (sums / static_cast<double>(count * result.batch_size * ranks.size())).cpu();
  result.loss = means[0].item<double>();
  result.image_to_text = means[1].item<double>();
  result.text_to_image = means[2].item<double>();
  result.images = images.seen();
  result.texts = texts.seen();
  const at::Tensor pairs = at::nonzero(seen_pairs).flatten();
  const at::Tensor image_of = images.numbers(pairs), text_of = texts.numbers(pairs);
  result.text_retrieves_image = recall(texts.rows(), images.rows(), text_of, image_of);
  result.image_retrieves_text = recall(images.rows(), texts.rows(), image_of, text_of);
  return result;
}

}  // namespace strobe::clip
