#include "clip/training/task.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "clip/training/recall.h"
#include "train/device.h"
#include "train/precision.h"

namespace strobe::clip {
namespace {

/// The same batches in every epoch.
class FixedBatches : public BatchSource {
 public:
  explicit FixedBatches(int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      Batch batch;
      batch.images = at::randn({3, 3, 32, 32});
      batch.texts = at::randint(104, 200, {3, 6}, at::kLong);
      batch.lengths = batch.texts.ne(0).sum(1);
      batches_.push_back(batch);
    }
  }
  int64_t begin_epoch(int64_t) override { return static_cast<int64_t>(batches_.size()); }
  Batch batch(int64_t index) override { return batches_.at(static_cast<std::size_t>(index)); }
  int64_t samples_per_epoch() const override { return 3 * static_cast<int64_t>(batches_.size()); }
  int64_t skipped() const override { return 0; }

 private:
  std::vector<Batch> batches_;
};

ClipTask make_task(int64_t accumulation) {
  train::seed_generators(at::kCPU, 5);
  const VisionConfig vision{.name = "", .embed_dim = 16, .image_resolution = 32, .layers = {2}, .width = 64};
  const TextConfig text{.name = "",
                        .vocab_size = 200,
                        .hidden_size = 64,
                        .num_hidden_layers = 2,
                        .num_attention_heads = 1,
                        .intermediate_size = 128,
                        .hidden_dropout = 0.3,
                        .attention_dropout = 0.3};
  Clip model(vision, text, ClipOptions());
  model->train();
  TaskOptions options;
  options.mask_ratio = 0.5;
  options.accumulation = accumulation;
  return ClipTask({model, nullptr, std::make_unique<FixedBatches>(5), {}}, options, at::kCPU,
                  std::make_shared<train::Communicator>());
}

TEST(ClipTask, AccumulatedBatchesSeeTheSameMaskAndDropoutInBothPasses) {
  ClipTask task = make_task(2);
  EXPECT_EQ(task.begin_epoch(1), 4);  // one batch is left over
  const std::vector<int64_t> batches = {0, 1};
  task.begin_update(batches);
  const at::Tensor after_caching = train::random_state(at::kCPU).at(std::string("cpu")).as_tensor().clone();
  const double first = task.forward(0).loss_sum.item<double>();
  const double second = task.forward(1).loss_sum.item<double>();
  EXPECT_EQ(first, second);  // one large batch's loss, computed twice from the same features
  EXPECT_TRUE(at::equal(train::random_state(at::kCPU).at(std::string("cpu")).as_tensor(), after_caching));
  task.begin_update(batches);
  EXPECT_NE(task.forward(0).loss_sum.item<double>(), first);  // the next update draws anew
}

TEST(ClipTask, RefusesAnEpochWithoutAWholeUpdate) {
  ClipTask task = make_task(6);
  EXPECT_THROW(task.begin_epoch(1), Error);
}

TEST(Recall, CountsQueriesWithAnAnswerAmongTheFirst) {
  // Candidates on a line: the largest product is the last candidate's.
  std::vector<double> values;
  for (int i = 0; i < 12; ++i) values.push_back(i);
  const at::Tensor candidates = at::tensor(values).unsqueeze(1);
  const at::Tensor queries = at::tensor({1.0, 1.0, -1.0, 1.0, 1.0}).unsqueeze(1);
  // Ranks from 0: 0; the better of 11 and 4; 0; 5. The last query has no answer.
  const at::Tensor query_of = at::tensor(std::vector<int64_t>{0, 1, 1, 2, 3});
  const at::Tensor candidate_of = at::tensor(std::vector<int64_t>{11, 0, 7, 0, 6});
  const Recall found = recall(queries, candidates, query_of, candidate_of);
  EXPECT_DOUBLE_EQ(found.at1, 50.0);
  EXPECT_DOUBLE_EQ(found.at5, 75.0);
  EXPECT_DOUBLE_EQ(found.at10, 100.0);
  EXPECT_DOUBLE_EQ(found.mean(), 75.0);
}

TEST(Recall, DoesNotRoundUnderAutocast) {
  const at::Tensor rows = at::randn({64, 32});
  const at::Tensor candidates = rows / rows.norm(2, 1, /*keepdim=*/true);
  const at::Tensor queries = candidates * at::linspace(1, 2, 64).unsqueeze(1);  // half of the products round upwards
  const at::Tensor own = at::arange(64);
  const train::AutocastGuard autocast(at::kCPU, train::Precision::kBf16);
  EXPECT_DOUBLE_EQ(recall(queries, candidates, own, own).at1, 100.0);
}

}  // namespace
}  // namespace strobe::clip
