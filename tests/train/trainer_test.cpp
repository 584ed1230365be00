#include "train/trainer.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <regex>

#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"
#include "train/checkpoint.h"

namespace strobe::train {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Trainer, LearnsAndSwitchesModes) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 20;
  const TrainResult result = train_quietly(task, options);
  ASSERT_EQ(result.epochs.size(), 20u);
  EXPECT_EQ(result.exit_status, 0);
  EXPECT_LT(result.epochs.back().loss, 0.5 * result.epochs.front().loss);
  EXPECT_TRUE(task.was_training);
  EXPECT_FALSE(task.validated_training);
  EXPECT_EQ(result.epochs[0].updates, 8);
  EXPECT_EQ(result.epochs[0].skipped_updates, 0);
  EXPECT_EQ(result.epochs[0].target_tokens, 31);  // batches of 3 4 5 3 4 5 3 4
  EXPECT_EQ(result.epochs[0].source_tokens, 62);
  EXPECT_DOUBLE_EQ(result.epochs[0].padding, 0.25);
  EXPECT_GT(result.epochs[0].peak_memory, int64_t{1} << 20);
  EXPECT_GT(result.epochs[0].target_tokens_per_second, 0.0);
}

TEST(Trainer, EpochLossIsTheMeanOverCountedItems) {
  const TemporaryFolder folder;
  TinyTask task, twin;
  TrainerOptions options = tiny_options(folder.path());
  options.schedule.lr = 1e-30;  // the weights stay
  options.optimizer.weight_decay = 0;
  options.epochs = 1;
  const TrainResult result = train_quietly(task, options);
  double sum = 0, count = 0;
  for (int64_t i = 0, n = twin.begin_epoch(1); i < n; ++i) {
    const BatchLoss loss = twin.forward(i);
    sum += loss.loss_sum.item<double>();
    count += static_cast<double>(loss.count);
  }
  EXPECT_NEAR(result.epochs[0].loss, sum / count, 1e-6 * sum / count);  // the same fp32 sums, added in fp64
}

TEST(Trainer, LogFollowsTheGrammar) {
  const TemporaryFolder folder;
  TinyTask task;
  task.scores = {1.5, 2.5, 2.0, 2.5, 1.0};
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 9;
  options.patience = 3;
  train_quietly(task, options);
  const std::string stamp = R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}:INFO: )";
  const auto epoch = [&](int n) {
    const std::string number = std::to_string(n);
    return stamp + "Epoch: " + number + R"(, loss: \d+\.\d+, time: \d+\.\d+\n)" + stamp + R"(Rate: .*\n)" + stamp +
           "Epoch: " + number + R"(, Dev loss: \d+\.\d+, Bleu Score: -?\d+\.\d+\n)";
  };
  const std::string best = stamp + "-------- Save Best Model! --------\n";
  const auto left = [&](int n) { return stamp + "Early Stop Left: " + std::to_string(n) + "\n"; };
  const std::regex grammar(epoch(1) + best + epoch(2) + best + epoch(3) + left(2) + epoch(4) + left(1) + epoch(5) +
                           left(0) + stamp + "-------- Early Stop! --------\n");
  const std::string log = read_text(folder / "train.log");
  EXPECT_TRUE(std::regex_match(log, grammar)) << log;
}

TEST(Trainer, BestModelIsTheOneThatScoredBest) {
  const TemporaryFolder folder;
  TinyTask task;
  task.scores = {1.0, 3.0, 2.0, 2.5};
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 4;
  const TrainResult result = train_quietly(task, options);
  EXPECT_EQ(result.best_epoch, 2);
  EXPECT_EQ(result.best_score, 3.0);
  const TemporaryFolder short_folder;
  TinyTask twin;
  TrainerOptions short_options = tiny_options(short_folder.path());
  short_options.epochs = 2;
  train_quietly(twin, short_options);
  TinyTask loaded;
  load_module_state(loaded.model(), load_checkpoint(folder / "model.pth").at("model").as_dict());
  EXPECT_TRUE(at::equal(flat_weights(loaded.model()), flat_weights(twin.model())));
  EXPECT_FALSE(at::equal(flat_weights(loaded.model()), flat_weights(task.model())));
}

TEST(Trainer, CheckpointHoldsWhatTheTaskDescribes) {
  const TemporaryFolder folder;
  TinyTask task;
  train_quietly(task, tiny_options(folder.path()));
  const Dict saved = load_checkpoint(folder / "model.pth");
  EXPECT_EQ(saved.at("config").as_dict().at("hidden").as_int(), 8);
  EXPECT_EQ(saved.at("vocabulary").as_bytes(), std::string("\0\xff words", 8));
  for (const char* key : {"model", "optimizer", "trainer"}) EXPECT_TRUE(saved.contains(key)) << key;
}

TEST(Trainer, AccumulatedBatchesAreOneBatch) {
  for (const double clip_norm : {0.0, 0.05}) {
    TinyTask::Options parts;
    parts.batches = 12;
    parts.dtype = at::kDouble;
    TinyTask::Options merged = parts;
    merged.merge = 3;
    TinyTask task(parts), twin(merged);
    const TemporaryFolder folder;
    TrainerOptions options = tiny_options(folder.path());
    options.clip_norm = clip_norm;
    TrainerOptions accumulating = options;
    accumulating.accumulation = 3;
    const TrainResult result = train_quietly(task, accumulating);
    train_quietly(twin, options);
    EXPECT_EQ(result.epochs[0].updates, 4);
    // 8 updates that each move a weight by about the rate: rounding of the sums' order only.
    EXPECT_TRUE(at::allclose(flat_weights(task.model()), flat_weights(twin.model()), 0.0, 1e-12));
  }
}

TEST(Trainer, LastUpdateOfAnEpochMayHaveFewerBatches) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  options.accumulation = 3;
  const TrainResult result = train_quietly(task, options);
  EXPECT_EQ(result.epochs[0].updates, 3);
}

TEST(Trainer, OtherErrorsOfTheTaskPassThrough) {
  const TemporaryFolder folder;
  TinyTask task;
  task.on_forward = [](int64_t, int64_t) { throw Error("no such batch"); };
  EXPECT_THROW(train_quietly(task, tiny_options(folder.path())), Error);
}

TEST(Trainer, ClippingBoundsTheStep) {
  const TemporaryFolder folder;
  TinyTask task, twin;
  TrainerOptions options = tiny_options(folder.path());
  options.max_updates = 1;
  options.optimizer.eps = 1.0;  // makes Adam's step depend on the gradient's size
  options.optimizer.weight_decay = 0;
  const at::Tensor before = flat_weights(task.model());
  train_quietly(task, options);
  options.clip_norm = 1e-3;
  train_quietly(twin, options);
  EXPECT_GT((flat_weights(task.model()) - before).norm().item<double>(),
            10 * (flat_weights(twin.model()) - before).norm().item<double>());
}

TEST(Trainer, MaxUpdatesEndsWithinAnEpoch) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  options.max_updates = 11;
  const TrainResult result = train_quietly(task, options);
  ASSERT_EQ(result.epochs.size(), 2u);
  EXPECT_EQ(result.epochs[1].updates, 3);
  EXPECT_TRUE(result.epochs[1].validation.has_value());
}

TEST(Trainer, ReducedPrecisionLearns) {
  for (const Precision precision : {Precision::kBf16, Precision::kFp16}) {
    const TemporaryFolder folder;
    TinyTask task;
    TrainerOptions options = tiny_options(folder.path());
    options.precision = precision;
    options.epochs = 20;
    const TrainResult result = train_quietly(task, options);
    EXPECT_LT(result.epochs.back().loss, 0.5 * result.epochs.front().loss) << precision_name(precision);
    EXPECT_EQ(load_checkpoint(folder / "last.pt").at("trainer").as_dict().at("scaler").is_none(),
              precision == Precision::kBf16);
  }
}

TEST(Trainer, RefusesOptionsOutOfRange) {
  const TemporaryFolder folder;
  TinyTask task;
  const auto message = [&](auto change) -> std::string {
    TrainerOptions options = tiny_options(folder.path());
    change(options);
    try {
      train_quietly(task, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message([](auto& o) { o.epochs = 0; }), "train: expected epochs >= 1, found 0");
  EXPECT_EQ(message([](auto& o) { o.accumulation = 0; }), "train: expected accumulation >= 1, found 0");
  EXPECT_EQ(message([](auto& o) { o.clip_norm = -1; }), "train: expected clip_norm >= 0, found -1");
  EXPECT_THAT(message([](auto& o) { o.schedule.lr = 0; }), HasSubstr("expected lr > 0"));
  EXPECT_THAT(message([](auto& o) { o.optimizer.beta2 = 1; }), HasSubstr("expected 0 <= beta2 < 1"));
}

}  // namespace
}  // namespace strobe::train
