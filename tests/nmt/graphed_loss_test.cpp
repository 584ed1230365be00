// Batches whose shapes recur, and losses replayed as CUDA graphs.
#include "nmt/graphed_loss.h"

#include <c10/core/GradMode.h>

#include <cmath>

#include "nmt/recurring_batch.h"
#include "tests/nmt/model_fixture.h"
#include "train/device.h"
#include "train/precision.h"

namespace strobe::nmt {
namespace {

std::vector<int64_t> first(int64_t count) {
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < count; ++i) indices.push_back(i);
  return indices;
}

TEST(RecurringBatch, HasRoundedSizesAndTheSameSentences) {
  const ModelConfig config = small_config("dotscale");
  const auto pairs = random_pairs(9, config, 12, 3);
  const Batch tight = make_batch(pairs, first(9), at::kCPU);
  const Batch recurring = make_recurring_batch(pairs, first(9), at::kCPU);
  EXPECT_EQ(recurring.source.sizes(), at::IntArrayRef({9, 16}));
  EXPECT_EQ(recurring.source_real.slots.size(0), 256);
  EXPECT_EQ(recurring.target_tokens, tight.target_tokens);
  EXPECT_TRUE(recurring.target_lengths.equal(tight.target_lengths));
  const int64_t real = tight.target_tokens;
  const auto targets = [](const Batch& batch) { return batch.target_real.of(batch.target_out); };
  EXPECT_TRUE(targets(recurring).narrow(0, 0, real).equal(targets(tight)));
  EXPECT_TRUE(targets(recurring).narrow(0, real, 256 - real).eq(kPadId).all().item<bool>());
}

TEST(RecurringBatch, NeverHasAsManyPackedTokensAsSlots) {
  std::vector<EncodedPair> pairs(32, {{kBosId, 4, 4, 4, 4, 4, kEosId}, {kBosId, 4, kEosId}});
  const Batch batch = make_recurring_batch(pairs, first(32), at::kCPU);
  EXPECT_EQ(batch.source_real.slots.size(0), 256);  // 32 * 8 slots would be as many
  EXPECT_EQ(batch.source.size(1), 16);
}

TEST(RecurringBatch, MovesToOtherMemory) {
  const auto pairs = random_pairs(5, small_config("dotscale"), 9, 4);
  const Batch batch = make_recurring_batch(pairs, first(5), at::kCPU);
  std::vector<at::Tensor> memory;
  for (const at::Tensor& each : memory_of(batch)) memory.push_back(each.clone());
  const Batch moved = in_memory(batch, memory);
  EXPECT_TRUE(moved.target_real.sequences.cu_seqlens.equal(batch.target_real.sequences.cu_seqlens));
  memory[0].zero_();
  EXPECT_FALSE(moved.target_out.any().item<bool>());
  EXPECT_TRUE(batch.target_out.any().item<bool>());
}

class RecurringBatches : public EveryModel {};

TEST_P(RecurringBatches, HaveTheLossOfTightOnes) {
  const c10::NoGradGuard no_grad;
  const ModelConfig config = small_config(GetParam());
  const auto pairs = random_pairs(7, config, 11, 5);
  Transformer model = seeded_model(config);
  model->eval();
  const double expected = model->loss(make_batch(pairs, first(7), at::kCPU), 0.1).item<double>();
  const double found = model->loss(make_recurring_batch(pairs, first(7), at::kCPU), 0.1).item<double>();
  EXPECT_NEAR(found, expected, 1e-5 * std::abs(expected));  // fp32 sums in another order
}

STROBE_FOR_EVERY_MODEL(RecurringBatches);

/// Losses and gradients of some steps, between which the weights change.
std::vector<at::Tensor> train_steps(const std::string& attn_type, bool graphs) {
  const at::Device device(at::kCUDA, 0);
  const ModelConfig config = small_config(attn_type);
  const auto pairs = random_pairs(9, config, 30, 6);
  Transformer model = seeded_model(config);
  model->to(device);
  GraphedLoss graphed(model, 0.1);
  train::seed_generators(device, 7);
  std::vector<at::Tensor> results;
  for (int64_t step = 0; step < 8; ++step) {
    const Batch batch = make_recurring_batch(pairs, step % 2 == 0 ? first(9) : first(4), device);
    at::Tensor loss;
    {
      const train::AutocastGuard autocast(at::kCUDA, train::Precision::kBf16);
      loss = graphs ? graphed(batch) : model->loss(batch, 0.1);
    }
    loss.backward();
    results.push_back(loss.detach().clone());
    const c10::NoGradGuard no_grad;
    for (at::Tensor& parameter : model->parameters()) {
      results.push_back(parameter.grad().clone());
      parameter.sub_(parameter.grad(), 0.01);
      parameter.mutable_grad().reset();
    }
  }
  return results;
}

class GraphedLossOnGpu : public EveryAttention {};

TEST_P(GraphedLossOnGpu, HasTheBitsOfTheLoss) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no GPU";
  const std::vector<at::Tensor> expected = train_steps(GetParam(), false), found = train_steps(GetParam(), true);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_TRUE(found[i].equal(expected[i])) << "of step " << i * 8 / found.size() << ", tensor " << i;
  }
}

STROBE_FOR_EVERY_ATTENTION(GraphedLossOnGpu);

}  // namespace
}  // namespace strobe::nmt
