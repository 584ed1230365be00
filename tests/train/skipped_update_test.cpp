// Updates that cannot be made: what is skipped, counted and logged, and that nothing else changes.
#include <ATen/ops/equal.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"
#include "train/checkpoint.h"
#include "train/updater.h"

namespace strobe::train {
namespace {

using ::testing::HasSubstr;

TEST(SkippedUpdate, NonFiniteBatchIsSkippedAndCounted) {
  const TemporaryFolder folder, twin_folder;
  TinyTask task;
  task.loss_factor = [](int64_t epoch, int64_t index) {
    return epoch == 1 && index == 7 ? std::numeric_limits<double>::quiet_NaN() : 1.0;
  };
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 1;
  const TrainResult result = train_quietly(task, options);
  EXPECT_EQ(result.epochs[0].updates, 7);
  EXPECT_EQ(result.epochs[0].skipped_updates, 1);
  EXPECT_TRUE(std::isfinite(result.epochs[0].loss));
  EXPECT_THAT(read_text(folder / "train.log"), HasSubstr("Gradients not finite in epoch 1: 1 update skipped"));
  TinyTask twin;
  TrainerOptions seven = tiny_options(twin_folder.path());
  seven.max_updates = 7;
  train_quietly(twin, seven);
  EXPECT_TRUE(at::equal(flat_weights(task.model()), flat_weights(twin.model())));
}

TEST(SkippedUpdate, OutOfMemoryCostsTheUpdateNotTheRun) {
  const TemporaryFolder folder, twin_folder;
  TinyTask task;
  task.on_forward = [](int64_t, int64_t index) {
    if (index == 7) C10_THROW_ERROR(OutOfMemoryError, "out of memory, says the test");
  };
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 1;
  const TrainResult result = train_quietly(task, options);
  EXPECT_EQ(result.epochs[0].updates, 7);
  EXPECT_EQ(result.epochs[0].skipped_updates, 1);
  EXPECT_THAT(read_text(folder / "train.log"), HasSubstr(":WARNING: Out of memory at batch 8 of 8 of epoch 1"));
  TinyTask twin;
  TrainerOptions seven = tiny_options(twin_folder.path());
  seven.max_updates = 7;
  train_quietly(twin, seven);
  EXPECT_TRUE(at::equal(flat_weights(task.model()), flat_weights(twin.model())));
}

TEST(SkippedUpdate, OutOfMemoryAmongAccumulatedBatchesDropsTheUpdateWhole) {
  const TemporaryFolder folder;
  TinyTask task, twin;
  task.on_forward = [](int64_t, int64_t index) {
    if (index == 4) C10_THROW_ERROR(OutOfMemoryError, "out of memory, says the test");
  };
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 1;
  options.accumulation = 3;
  const TrainResult result = train_quietly(task, options);
  EXPECT_EQ(result.epochs[0].updates, 2);
  EXPECT_EQ(result.epochs[0].skipped_updates, 1);

  Updater updater(twin, options);
  EpochTotals totals;
  twin.begin_epoch(1);
  twin.model().train();
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 3}, {6, 8}}) {
    updater.apply(options.schedule.lr, updater.accumulate(begin, end), totals);
  }
  EXPECT_TRUE(at::equal(flat_weights(task.model()), flat_weights(twin.model())));
  const Dict state = load_checkpoint(folder / "last.pt").at("trainer").as_dict();
  EXPECT_EQ(state.at("update").as_int(), 2);
  EXPECT_EQ(state.at("epoch").as_int(), 2);
}

/// Counts no items in its first batch.
struct EmptyBatchTask : TinyTask {
  BatchLoss forward(int64_t index) override {
    BatchLoss loss = TinyTask::forward(index);
    if (index == 0) loss = {loss.loss_sum * 0.0};
    return loss;
  }
};

TEST(SkippedUpdate, BatchThatCountsNothingHarmsNothing) {
  const TemporaryFolder folder;
  EmptyBatchTask task;
  const TrainResult result = train_quietly(task, tiny_options(folder.path()));
  EXPECT_EQ(result.epochs[0].updates, 8);
  EXPECT_TRUE(std::isfinite(result.epochs[1].loss));
  EXPECT_TRUE(std::isfinite(flat_weights(task.model()).sum().item<double>()));
}

TEST(SkippedUpdate, EndsWhereNoUpdateIsFinite) {
  const TemporaryFolder folder;
  TinyTask task;
  task.loss_factor = [](int64_t, int64_t) { return std::numeric_limits<double>::infinity(); };
  try {
    train_quietly(task, tiny_options(folder.path()));
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no update of epoch 1 succeeded (8 not finite, 0 out of memory)"));
  }
}

TEST(SkippedUpdate, OverflowHalvesTheLossScale) {
  const TemporaryFolder folder;
  TinyTask task;
  task.loss_factor = [](int64_t, int64_t index) {
    return index == 2 || index == 5 ? std::numeric_limits<double>::infinity() : 0.01;  // none overflows by itself
  };
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 1;
  options.precision = Precision::kFp16;
  const TrainResult result = train_quietly(task, options);
  EXPECT_EQ(result.epochs[0].updates, 6);
  EXPECT_EQ(result.epochs[0].skipped_updates, 2);
  const Dict saved = load_checkpoint(folder / "last.pt");
  TinyTask twin;
  twin.begin_epoch(1);
  const double first_scale = 65536.0 / (twin.batch(0).targets.size(0) > 4 ? 8 : 4);  // over 3 to 5 items
  EXPECT_EQ(saved.at("trainer").as_dict().at("scaler").as_dict().at("scale").as_double(), first_scale / 4);
  const Dict& first = saved.at("optimizer").as_dict().at("state").as_dict().at(int64_t{0}).as_dict();
  EXPECT_EQ(first.at("step").as_tensor().item<double>(), 6.0);
  EXPECT_THAT(read_text(folder / "train.log"), HasSubstr("Gradients not finite in epoch 1: 2 updates skipped"));
}

}  // namespace
}  // namespace strobe::train
