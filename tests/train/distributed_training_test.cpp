#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "tests/temporary_folder.h"
#include "tests/train/distributed_ranks.h"
#include "tests/train/tiny_task.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace strobe::train {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// A folder for each rank: what stands in those of the others shows that only rank 0 writes. They can read its files.
class Folders {
 public:
  Folders()
      : base_(std::filesystem::temp_directory_path() / ("strobe-ranks-" + std::string(std::getenv("MASTER_PORT")))) {
    std::filesystem::create_directories(own());
  }
  ~Folders() {
    ranks->max(0);  // nobody reads any more
    std::error_code ignored;
    std::filesystem::remove_all(own(), ignored);
  }
  Folders(const Folders&) = delete;
  Folders& operator=(const Folders&) = delete;
  std::filesystem::path own() const { return base_ / std::to_string(ranks->rank()); }
  std::filesystem::path root() const { return base_ / "0"; }

 private:
  std::filesystem::path base_;
};

TinyTask::Options task_options(int64_t batches, at::ScalarType dtype = at::kFloat, double dropout = 0.0) {
  TinyTask::Options options;
  options.batches = batches;
  options.dtype = dtype;
  options.dropout = dropout;
  options.device = device;
  return options;
}

TrainerOptions trainer_options(const std::filesystem::path& folder) {
  TrainerOptions options = tiny_options(folder);
  options.device = device;
  options.ranks = ranks;
  options.deterministic = true;
  return options;
}

TrainResult train_ranks(Task& task, const TrainerOptions& options) {
  Logger logger =
      ranks->is_root() ? Logger(options.folder / "train.log", Logger::Mode::kTruncate, /*console=*/false) : Logger();
  return train(task, options, logger);
}

/// The same run in one process: one update takes what all ranks take together.
TrainResult train_alone(Task& task, TrainerOptions options) {
  const TemporaryFolder folder;
  options.folder = folder.path();
  options.accumulation *= ranks->size();
  options.ranks = std::make_shared<Communicator>();
  return train_quietly(task, options);
}

void expect_same_on_all_ranks(TinyTask& task) {
  const at::Tensor all = ranks->all_gather(flat_weights(task.model()));
  for (int64_t rank = 1; rank < ranks->size(); ++rank) EXPECT_TRUE(at::equal(all[rank], all[0])) << rank;
}

void expect_equal_runs(const TrainResult& result, const TrainResult& alone, double tolerance) {
  ASSERT_EQ(result.epochs.size(), alone.epochs.size());
  for (std::size_t i = 0; i < result.epochs.size(); ++i) {
    const EpochStats &found = result.epochs[i], &expected = alone.epochs[i];
    EXPECT_NEAR(found.loss, expected.loss, tolerance * expected.loss);
    EXPECT_EQ(found.target_tokens, expected.target_tokens);
    EXPECT_EQ(found.source_tokens, expected.source_tokens);
    EXPECT_EQ(found.padding, expected.padding);
    EXPECT_EQ(found.updates, expected.updates);
    EXPECT_EQ(found.skipped_updates, expected.skipped_updates);
  }
}

struct Case {
  int64_t batches, accumulation;
  at::ScalarType dtype = at::kDouble;
  double clip_norm = 0.0;
  Precision precision = Precision::kFp32;
};

class RanksAreOneBatch : public ::testing::TestWithParam<Case> {};

TEST_P(RanksAreOneBatch, UpToTheOrderOfSums) {
  const Case& c = GetParam();
  const Folders folders;
  TinyTask task(task_options(c.batches, c.dtype)), twin(task_options(c.batches, c.dtype));
  TrainerOptions options = trainer_options(folders.own());
  options.accumulation = c.accumulation;
  options.clip_norm = c.clip_norm;
  options.precision = c.precision;
  const TrainResult result = train_ranks(task, options);
  const TrainResult alone = train_alone(twin, options);
  expect_same_on_all_ranks(task);
  // Sums of gradients in another order differ by some units in the last place; Adam moves a weight by about the rate,
  // 1e-2, whatever the gradient's size, times the relative error of the gradient, in each of at most 20 updates.
  const double unit = c.dtype == at::kDouble ? 1e-15 : 1e-7;
  EXPECT_TRUE(at::allclose(flat_weights(task.model()), flat_weights(twin.model()), 0.0, 1e3 * unit));
  expect_equal_runs(result, alone, 1e3 * unit);
}

INSTANTIATE_TEST_SUITE_P(All, RanksAreOneBatch,
                         ::testing::Values(Case{12, 1}, Case{12, 2}, Case{11, 1}, Case{7, 2}, Case{1, 1},
                                           Case{13, 3, at::kDouble, 0.05}, Case{12, 1, at::kFloat},
                                           Case{11, 2, at::kFloat, 0.05},
                                           Case{11, 1, at::kFloat, 0.0, Precision::kFp16}));

TEST(Ranks, SkipAnUpdateTogetherWhereOneFindsNaN) {
  const Folders folders;
  TinyTask task(task_options(11, at::kDouble)), twin(task_options(11, at::kDouble));
  task.loss_factor = twin.loss_factor = [](int64_t epoch, int64_t index) {
    return epoch == 1 && index == 4 ? std::numeric_limits<double>::quiet_NaN() : 1.0;
  };
  const TrainerOptions options = trainer_options(folders.own());
  const TrainResult result = train_ranks(task, options);
  expect_equal_runs(result, train_alone(twin, options), 1e-12);
  EXPECT_EQ(result.epochs[0].skipped_updates, 1);
  expect_same_on_all_ranks(task);
  EXPECT_TRUE(at::allclose(flat_weights(task.model()), flat_weights(twin.model()), 0.0, 1e-12));
}

TEST(Ranks, SkipAnUpdateTogetherWhereOneRunsOutOfMemory) {
  for (const int64_t accumulation : {1, 2}) {
    const Folders folders;
    TinyTask task(task_options(12, at::kDouble)), twin(task_options(12, at::kDouble));
    task.on_forward = twin.on_forward = [](int64_t epoch, int64_t index) {
      if (epoch == 1 && index == 4) C10_THROW_ERROR(OutOfMemoryError, "out of memory, says the test");
    };
    TrainerOptions options = trainer_options(folders.own());
    options.accumulation = accumulation;
    const TrainResult result = train_ranks(task, options);
    expect_equal_runs(result, train_alone(twin, options), 1e-12);
    EXPECT_EQ(result.epochs[0].skipped_updates, 1);
    expect_same_on_all_ranks(task);
    EXPECT_TRUE(at::allclose(flat_weights(task.model()), flat_weights(twin.model()), 0.0, 1e-12));
    if (ranks->is_root()) {
      EXPECT_THAT(read_text(folders.own() / "train.log"), HasSubstr("Out of memory"));
    }
  }
}

TEST(Ranks, OnlyTheFirstWritesValidatesAndDecides) {
  const Folders folders;
  TinyTask task(task_options(8));
  task.scores = ranks->is_root() ? std::vector<double>{1, 3, 2, 2} : std::vector<double>{1, 2, 3, 4};
  TrainerOptions options = trainer_options(folders.own());
  options.epochs = 9;
  options.patience = 2;
  const TrainResult result = train_ranks(task, options);
  EXPECT_EQ(result.epochs.size(), 4u);
  EXPECT_EQ(result.best_epoch, 2);
  EXPECT_EQ(result.best_score, 3.0);
  EXPECT_EQ(std::filesystem::exists(folders.own() / "last.pt"), ranks->is_root());
  EXPECT_EQ(std::filesystem::is_empty(folders.own()), !ranks->is_root());
}

/// Stops rank `stopped` alone by a signal in the middle of an epoch.
TinyTask stopped_task(int stopped) {
  TinyTask task(task_options(11, at::kFloat, /*dropout=*/0.3));
  task.on_forward = [stopped](int64_t epoch, int64_t index) {
    if (ranks->rank() == stopped && epoch == 2 && index >= 3 && index < 3 + ranks->size()) std::raise(SIGTERM);
  };
  return task;
}

TEST(Ranks, StopTogetherAndGoOnBitForBit) {
  for (const int stopped : {0, ranks->size() - 1}) {
    const Folders folders;
    TinyTask straight(task_options(11, at::kFloat, 0.3)), stops = stopped_task(stopped),
                                                          resumed(task_options(11, at::kFloat, 0.3));
    TrainerOptions options = trainer_options(folders.own());
    options.epochs = 3;
    train_ranks(straight, options);
    EXPECT_EQ(train_ranks(stops, options).exit_status, 128 + SIGTERM);
    const Dict trainer = load_checkpoint(folders.root() / "last.pt").at("trainer").as_dict();
    EXPECT_EQ(trainer.at("epoch").as_int(), 2);
    EXPECT_LT(trainer.at("batch").as_int(), 11);
    EXPECT_EQ(trainer.at("processes").as_int(), ranks->size());
    const List& others = trainer.at("random_of_ranks").as_list();
    ASSERT_EQ(others.size(), static_cast<std::size_t>(ranks->size() - 1));
    EXPECT_FALSE(
        at::equal(others[0].as_dict().at("cpu").as_tensor(), trainer.at("random").as_dict().at("cpu").as_tensor()));
    ranks->max(0);  // all have read it
    options.resume = folders.root() / "last.pt";
    options.seed = 99;  // of no influence any more
    EXPECT_EQ(train_ranks(resumed, options).exit_status, 0);
    EXPECT_TRUE(at::equal(flat_weights(resumed.model()), flat_weights(straight.model())));
    expect_same_on_all_ranks(resumed);
  }
}

TEST(Ranks, GoOnFromAnotherNumberOfProcessesWithAWarning) {
  const Folders folders;
  TinyTask task = stopped_task(0);
  TrainerOptions options = trainer_options(folders.own());
  options.epochs = 3;
  train_ranks(task, options);
  TinyTask alone(task_options(11, at::kFloat, 0.3)), again(task_options(11, at::kFloat, 0.3));
  options.resume = folders.root() / "last.pt";
  if (ranks->is_root()) {
    TrainerOptions one = options;
    one.ranks = std::make_shared<Communicator>();
    EXPECT_EQ(train_quietly(alone, one).exit_status, 0);
    EXPECT_THAT(read_text(folders.own() / "train.log"), HasSubstr(":WARNING: The checkpoint is of a run of "));
  }
  ranks->max(0);  // the checkpoint is now that of one process
  options.epochs = 4;
  EXPECT_EQ(train_ranks(again, options).exit_status, 0);
  expect_same_on_all_ranks(again);
}

TEST(Ranks, StartFromTheWeightsOfTheFirst) {
  const Folders folders;
  TinyTask task(task_options(6)), twin(task_options(6));
  {
    const at::NoGradGuard no_grad;
    for (at::Tensor tensor : task.model().parameters()) tensor.add_(ranks->rank());
  }
  const TrainerOptions options = trainer_options(folders.own());
  train_ranks(task, options);
  train_alone(twin, options);
  expect_same_on_all_ranks(task);
  EXPECT_TRUE(at::allclose(flat_weights(task.model()), flat_weights(twin.model()), 0.0, 1e-4));
}

TEST(Ranks, WithDifferentBatchesAreRefused) {
  const Folders folders;
  TinyTask task(task_options(6 + ranks->rank()));
  std::string text;
  try {
    train_ranks(task, trainer_options(folders.own()));
  } catch (const Error& error) {
    text = error.what();
  }
  EXPECT_THAT(text, HasSubstr("expected the same batches in all processes"));
}

}  // namespace
}  // namespace strobe::train
