#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <set>

#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"
#include "train/checkpoint.h"

namespace strobe::train {
namespace {

using ::testing::HasSubstr;

struct Case {
  int64_t stop_epoch, stop_batch;
  int64_t accumulation;
  Precision precision = Precision::kFp32;
  int64_t validate_every_updates = 0;
  int64_t keep_last = 0;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << "epoch " << c.stop_epoch << " batch " << c.stop_batch << " accumulation " << c.accumulation << " "
       << precision_name(c.precision) << " validated every " << c.validate_every_updates << " keeping " << c.keep_last;
}

TinyTask dropout_task() {
  TinyTask::Options options;
  options.dropout = 0.3;
  return TinyTask(options);
}

TrainerOptions options_for(const Case& c, const TemporaryFolder& folder) {
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 3;
  options.accumulation = c.accumulation;
  options.precision = c.precision;
  options.validate_every_updates = c.validate_every_updates;
  options.keep_last = c.keep_last;
  options.clip_norm = 1.0;
  options.seed = 7;
  return options;
}

/// Equal bit for bit, but for the clock's readings.
void expect_equal(const Value& a, const Value& b, const std::string& path) {
  ASSERT_EQ(a.data.index(), b.data.index()) << path;
  if (const auto* dict = std::get_if<Dict>(&a.data)) {
    ASSERT_EQ(dict->size(), b.as_dict().size()) << path;
    for (const auto& [key, value] : *dict) {
      const std::string name = std::holds_alternative<std::string>(key) ? std::get<std::string>(key)
                                                                        : std::to_string(std::get<int64_t>(key));
      if (name != "seconds") expect_equal(value, b.as_dict().at(key), path + "/" + name);
    }
  } else if (std::holds_alternative<at::Tensor>(a.data)) {
    EXPECT_TRUE(at::equal(a.as_tensor(), b.as_tensor())) << path;
  } else if (std::holds_alternative<double>(a.data)) {
    EXPECT_EQ(a.as_double(), b.as_double()) << path;
  } else if (std::holds_alternative<int64_t>(a.data)) {
    EXPECT_EQ(a.as_int(), b.as_int()) << path;
  }
}

std::set<std::string> names_in(const TemporaryFolder& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) names.insert(entry.path().filename());
  return names;
}

class ResumeAt : public ::testing::TestWithParam<Case> {};

TEST_P(ResumeAt, GoesOnBitForBit) {
  const Case& c = GetParam();
  const TemporaryFolder straight_folder, folder;
  TinyTask straight = dropout_task();
  const TrainResult expected = train_quietly(straight, options_for(c, straight_folder));

  TinyTask stopped = dropout_task();
  stopped.on_forward = [&](int64_t epoch, int64_t index) {
    if (epoch == c.stop_epoch && index == c.stop_batch) std::raise(SIGTERM);
  };
  TrainerOptions options = options_for(c, folder);
  EXPECT_EQ(train_quietly(stopped, options).exit_status, 128 + SIGTERM);

  TinyTask resumed = dropout_task();
  options.resume = folder / "last.pt";
  options.seed = 8;  // of no influence any more
  const TrainResult result = train_quietly(resumed, options);
  EXPECT_EQ(result.exit_status, 0);
  EXPECT_TRUE(at::equal(flat_weights(resumed.model()), flat_weights(straight.model())));
  EXPECT_EQ(result.best_epoch, expected.best_epoch);
  EXPECT_EQ(result.best_update, expected.best_update);
  EXPECT_EQ(names_in(folder), names_in(straight_folder));
  for (const char* name : {"last.pt", "model.pth"}) {
    expect_equal(load_checkpoint(straight_folder / name), load_checkpoint(folder / name), name);
  }
  ASSERT_FALSE(result.epochs.empty());
  EXPECT_EQ(result.epochs.back().loss, expected.epochs.back().loss);
}

INSTANTIATE_TEST_SUITE_P(AnyBatch, ResumeAt,
                         ::testing::Values(Case{1, 0, 1}, Case{1, 4, 1}, Case{1, 7, 1}, Case{2, 0, 1}, Case{2, 5, 1},
                                           Case{3, 3, 1}, Case{3, 7, 1}, Case{1, 1, 3}, Case{2, 7, 3}, Case{2, 2, 3},
                                           Case{2, 3, 1, Precision::kBf16}, Case{2, 3, 1, Precision::kFp16},
                                           // Before, at and after a validation; at one that ends an epoch.
                                           Case{1, 3, 1, Precision::kFp32, 5, 2}, Case{1, 4, 1, Precision::kFp32, 5, 2},
                                           Case{1, 5, 1, Precision::kFp32, 5, 2}, Case{2, 7, 1, Precision::kFp32, 4, 3},
                                           Case{3, 7, 1, Precision::kFp32, 6, 1}));

TEST(Resume, ValidatesAtTheEndWhatASignalLeftUnvalidated) {
  const TemporaryFolder folder;
  TinyTask task, resumed;
  task.on_forward = [](int64_t, int64_t index) {
    if (index == 5) std::raise(SIGTERM);
  };
  TrainerOptions options = tiny_options(folder.path());
  options.max_updates = 6;
  EXPECT_EQ(train_quietly(task, options).best_update, 0);
  options.resume = folder / "last.pt";
  const TrainResult result = train_quietly(resumed, options);
  EXPECT_EQ(result.best_update, 6);
  EXPECT_EQ(result.epochs.size(), 1u);
}

/// Fails in its second validation.
struct FailingTask : TinyTask {
  Validation validate() override {
    if (++validations == 2) throw Error("the validation failed");
    return TinyTask::validate();
  }
  int validations = 0;
};

TEST(Resume, GoesOnFromBeforeAValidationThatFailed) {
  for (const int64_t by_updates : {0, 5}) {
    const TemporaryFolder folder, straight_folder;
    TinyTask straight, resumed;
    FailingTask failing;
    TrainerOptions options = tiny_options(straight_folder.path());
    options.validate_every_updates = by_updates;
    train_quietly(straight, options);
    options.folder = folder.path();
    EXPECT_THROW(train_quietly(failing, options), Error);
    options.resume = folder / "last.pt";
    const Dict saved = load_checkpoint(options.resume);
    EXPECT_EQ(saved.at("trainer").as_dict().at("update").as_int(), by_updates == 0 ? 16 : 8);
    train_quietly(resumed, options);
    for (const char* name : {"last.pt", "model.pth"}) {
      expect_equal(load_checkpoint(straight_folder / name), load_checkpoint(folder / name), name);
    }
  }
}

TEST(Resume, AppendsToTheLogAndDrawsInANewFile) {
  const TemporaryFolder folder;
  TinyTask task, resumed;
  TrainerOptions options = tiny_options(folder.path());
  options.epochs = 1;
  train_quietly(task, options);
  options.epochs = 2;
  options.resume = folder / "last.pt";
  train_quietly(resumed, options);
  const std::string log = read_text(folder / "train.log");
  EXPECT_THAT(log, HasSubstr("Epoch: 1, loss"));
  EXPECT_THAT(log, HasSubstr("last.pt: epoch 2, batch 0, update 8"));
  EXPECT_THAT(log, HasSubstr("Epoch: 2, loss"));
  const auto files = std::filesystem::directory_iterator(folder / "tensorboard");
  EXPECT_EQ(std::distance(begin(files), end(files)), 2);
}

TEST(Signals, FinishTheUpdateAndLeaveACheckpoint) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const TemporaryFolder folder;
    TinyTask task;
    task.on_forward = [&](int64_t epoch, int64_t index) {
      if (epoch == 1 && index == 2) std::raise(signal);
    };
    const TrainResult result = train_quietly(task, tiny_options(folder.path()));
    EXPECT_EQ(result.exit_status, 128 + signal);
    const Dict saved = load_checkpoint(folder / "last.pt");
    EXPECT_EQ(saved.at("trainer").as_dict().at("batch").as_int(), 3);
    EXPECT_THAT(read_text(folder / "train.log"), HasSubstr("Stopped by"));
  }
}

TEST(Signals, HandlersAreRestored) {
  const TemporaryFolder folder;
  TinyTask task;
  train_quietly(task, tiny_options(folder.path()));
  struct sigaction action;
  ASSERT_EQ(::sigaction(SIGINT, nullptr, &action), 0);
  EXPECT_EQ(action.sa_handler, SIG_DFL);
}

TEST(Resume, OfAFinishedRunDoesNothing) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  train_quietly(task, options);
  TinyTask again;
  options.resume = folder / "last.pt";
  const TrainResult result = train_quietly(again, options);
  EXPECT_TRUE(result.epochs.empty());
  EXPECT_EQ(result.best_epoch, 2);
  EXPECT_TRUE(at::equal(flat_weights(task.model()), flat_weights(again.model())));
}

TEST(Resume, MoreEpochsContinueTheRun) {
  const TemporaryFolder folder, straight_folder;
  TinyTask task, again, straight;
  TrainerOptions options = tiny_options(folder.path());
  train_quietly(task, options);
  options.epochs = 4;
  options.resume = folder / "last.pt";
  EXPECT_EQ(train_quietly(again, options).epochs.size(), 2u);
  TrainerOptions four = tiny_options(straight_folder.path());
  four.epochs = 4;
  train_quietly(straight, four);
  EXPECT_TRUE(at::equal(flat_weights(straight.model()), flat_weights(again.model())));
}

TEST(Resume, MissingOrForeignFileIsAnError) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  const auto message = [&]() -> std::string {
    try {
      train_quietly(task, options);
    } catch (const CheckpointError& error) {
      return error.what();
    }
    return "";
  };
  options.resume = folder / "nothing.pt";
  EXPECT_THAT(message(), HasSubstr("nothing.pt: no such file"));
  Dict foreign;
  foreign["model"] = module_state(task.model());
  save_checkpoint(folder / "foreign.pt", foreign);
  options.resume = folder / "foreign.pt";
  EXPECT_THAT(message(), HasSubstr("foreign.pt: checkpoint dict: expected the key \"trainer\""));
}

}  // namespace
}  // namespace strobe::train
