// The course of a run: when it is validated, what it keeps, where it ends; and that its seed decides all of it.
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <regex>
#include <sstream>

#include "tests/message_of.h"
#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"
#include "train/checkpoint.h"
#include "train/run_checkpoints.h"

namespace strobe::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// The log's messages without what only the clock and the memory decide.
std::vector<std::string> messages(const std::filesystem::path& folder) {
  static const std::regex kStamp(R"(^\S+ \S+:(INFO|WARNING): )"), kTime("time: .*|^Rate: [0-9.]+|memory: [0-9]+");
  std::istringstream lines(read_text(folder / "train.log"));
  std::vector<std::string> found;
  for (std::string line; std::getline(lines, line);) {
    found.push_back(std::regex_replace(std::regex_replace(line, kStamp, ""), kTime, "_"));
  }
  return found;
}

/// "e1" for an epoch's line, "d1" for the validation at its end, "d1@3" for one after update 3, "+" best, "-" not.
std::vector<std::string> course(const std::filesystem::path& folder) {
  std::vector<std::string> found;
  std::smatch match;
  for (const std::string& line : messages(folder)) {
    if (std::regex_search(line, match, std::regex(R"(^Epoch: (\d+), loss)"))) {
      found.push_back(match.format("e$1"));
    } else if (std::regex_search(line, match, std::regex(R"(^Epoch: (\d+), Dev)"))) {
      found.push_back(match.format("d$1"));
    } else if (std::regex_search(line, match, std::regex(R"(^Epoch: (\d+), update: (\d+), Dev)"))) {
      found.push_back(match.format("d$1@$2"));
    } else if (line.find("Best Model") != std::string::npos) {
      found.back() += "+";
    } else if (line.find("Left") != std::string::npos) {
      found.back() += "-";
    } else if (line.find("Early Stop!") != std::string::npos) {
      found.push_back("stop");
    }
  }
  return found;
}

std::vector<std::string> checkpoints(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("checkpoint-")) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

const Dict& trainer_state(const Dict& checkpoint) { return checkpoint.at("trainer").as_dict(); }

TEST(Validation, ByUpdatesAloneEndsWithTheLastWeights) {
  const TemporaryFolder folder;
  TinyTask task;
  task.scores = {1, 2, 3, 4};
  TrainerOptions options = tiny_options(folder.path());  // 2 epochs of 8 updates
  options.validate_every = 0;
  options.validate_every_updates = 5;
  const TrainResult result = train_quietly(task, options);
  EXPECT_THAT(course(folder.path()), ElementsAre("d1@5+", "e1", "d2@10+", "d2@15+", "e2", "d2+"));
  EXPECT_EQ(result.best_update, 16);
  EXPECT_FALSE(result.epochs[0].validation.has_value());
  EXPECT_EQ(result.epochs[1].validation->score, 4);
}

TEST(Validation, ByEpochsAndUpdatesLooksAtTheSameWeightsOnce) {
  const TemporaryFolder folder;
  TinyTask task;
  task.scores = {1, 2, 3, 4};
  TrainerOptions options = tiny_options(folder.path());
  options.validate_every_updates = 4;
  train_quietly(task, options);
  EXPECT_THAT(course(folder.path()), ElementsAre("d1@4+", "e1", "d1+", "d2@12+", "e2", "d2+"));
}

TEST(Validation, AnUpdateThatEndsAnEpochIsNamed) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  options.validate_every = 0;
  options.validate_every_updates = 8;
  options.patience = 9;
  task.scores = {2, 1};
  train_quietly(task, options);
  EXPECT_THAT(course(folder.path()), ElementsAre("e1", "d1@8+", "e2", "d2@16-"));
}

TEST(Validation, PatienceCountsBothKindsAndEndsWithinAnEpoch) {
  const TemporaryFolder folder;
  TinyTask task;
  task.scores = {1, 5, 4, 3, 6};
  TrainerOptions options = tiny_options(folder.path());
  options.validate_every_updates = 5;
  options.patience = 2;
  const TrainResult result = train_quietly(task, options);
  EXPECT_THAT(course(folder.path()), ElementsAre("d1@5+", "e1", "d1+", "d2@10-", "d2@15-", "e2", "stop"));
  EXPECT_EQ(result.best_epoch, 1);
  EXPECT_EQ(result.best_update, 8);
  EXPECT_EQ(result.epochs.back().updates, 7);
  EXPECT_EQ(trainer_state(load_checkpoint(folder / "model.pth")).at("update").as_int(), 8);
  EXPECT_EQ(trainer_state(load_checkpoint(folder / "last.pt")).at("update").as_int(), 15);
}

TEST(Validation, NeverLeavesTheLastStateAsTheModel) {
  const TemporaryFolder folder;
  TinyTask task, loaded;
  TrainerOptions options = tiny_options(folder.path());
  options.validate_every = 0;
  train_quietly(task, options);
  EXPECT_THAT(course(folder.path()), ElementsAre("e1", "e2"));
  load_module_state(loaded.model(), load_checkpoint(folder / "model.pth").at("model").as_dict());
  EXPECT_TRUE(at::equal(flat_weights(loaded.model()), flat_weights(task.model())));
}

TEST(KeepLast, KeepsTheLastOfEpochsSavesAndValidations) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  options.keep_last = 4;
  options.save_every = 3;
  options.validate_every_updates = 5;
  train_quietly(task, options);  // 3 5 6 8 9 10 12 15 16
  EXPECT_THAT(checkpoints(folder.path()), ElementsAre("checkpoint-000010.pt", "checkpoint-000012.pt",
                                                      "checkpoint-000015.pt", "checkpoint-000016.pt"));
  for (const int64_t update : {10, 12, 15, 16}) {
    const Dict saved = load_checkpoint(folder.path() / ("checkpoint-0000" + std::to_string(update) + ".pt"));
    EXPECT_EQ(trainer_state(saved).at("update").as_int(), update);
    EXPECT_TRUE(saved.contains("config"));
  }
  EXPECT_EQ(read_text(folder / "checkpoint-000016.pt"), read_text(folder / "last.pt"));
}

TEST(KeepLast, LeavesFilesOfOtherRunsAlone) {
  const TemporaryFolder folder;
  TinyTask task;
  TrainerOptions options = tiny_options(folder.path());
  train_quietly(task, options);
  EXPECT_THAT(checkpoints(folder.path()), IsEmpty());
  std::filesystem::copy(folder / "last.pt", folder / "checkpoint-000001.pt");
  options.keep_last = 1;
  train_quietly(task, options);
  EXPECT_THAT(checkpoints(folder.path()), ElementsAre("checkpoint-000001.pt", "checkpoint-000016.pt"));
}

TEST(KeepLast, AnyOfThemCanBeResumedFromInAnotherFolder) {
  const TemporaryFolder folder, other;
  TinyTask task, resumed;
  TrainerOptions options = tiny_options(folder.path());
  options.keep_last = 9;
  options.save_every = 3;
  train_quietly(task, options);
  TrainerOptions again = options;
  again.folder = other.path();
  again.resume = folder / "checkpoint-000012.pt";
  again.keep_last = 1;
  std::ofstream(other / "checkpoint-000009.pt") << "of another run";
  train_quietly(resumed, again);
  EXPECT_THAT(checkpoints(other.path()), ElementsAre("checkpoint-000009.pt", "checkpoint-000016.pt"));
  EXPECT_TRUE(at::equal(flat_weights(task.model()), flat_weights(resumed.model())));
}

/// The learning rate of a run's last update.
double last_rate(const TrainerOptions& options) {
  const Dict saved = load_checkpoint(options.folder / "last.pt");
  return saved.at("optimizer").as_dict().at("param_groups").as_list()[0].as_dict().at("lr").as_double();
}

TEST(Course, CosineEndsWhereTheRunEnds) {
  struct Case {
    int64_t epochs, max_updates, accumulation, total;
  };
  for (const Case& c :
       {Case{3, 0, 1, 24}, Case{3, 100, 1, 24}, Case{3, 13, 1, 13}, Case{3, 0, 3, 9}, Case{1, 8, 1, 8}}) {
    const TemporaryFolder folder;
    TinyTask task;
    TrainerOptions options = tiny_options(folder.path());
    options.epochs = c.epochs;
    options.max_updates = c.max_updates;
    options.accumulation = c.accumulation;
    options.schedule.kind = ScheduleOptions::Kind::kCosine;
    options.schedule.warmup = 2;
    options.schedule.min_lr = 1e-5;
    EXPECT_EQ(planned_updates(options, 8), c.total);
    train_quietly(task, options);
    EXPECT_EQ(trainer_state(load_checkpoint(folder / "last.pt")).at("update").as_int(), c.total);
    EXPECT_NEAR(last_rate(options), 1e-5, 1e-18);  // (lr - min_lr) times the rounding of 1 + cos(pi)
  }
}

TEST(Course, SameSeedSameLog) {
  TinyTask::Options dropout;
  dropout.dropout = 0.3;
  const auto run = [&](const TemporaryFolder& folder, uint64_t seed) {
    TinyTask task(dropout);
    task.loss_factor = [](int64_t epoch, int64_t index) { return epoch == 2 && index == 3 ? std::nan("") : 1.0; };
    TrainerOptions options = tiny_options(folder.path());
    options.epochs = 3;
    options.validate_every_updates = 3;
    options.patience = 100;
    options.seed = seed;
    train_quietly(task, options);
    return messages(folder.path());
  };
  const TemporaryFolder a, b, c;
  const std::vector<std::string> first = run(a, 1);
  EXPECT_GT(first.size(), 20u);
  EXPECT_EQ(first, run(b, 1));
  EXPECT_NE(first, run(c, 2));
}

std::string refusal(const std::filesystem::path& file) {
  return message_of<CheckpointError>([&] { require_resumable(file); });
}

TEST(RequireResumable, TellsWhatIsWrongBeforeARunStarts) {
  const TemporaryFolder folder;
  TinyTask task;
  train_quietly(task, tiny_options(folder.path()));
  EXPECT_EQ(refusal(folder / "last.pt"), "");
  EXPECT_EQ(refusal(folder / "model.pth"), "");
  EXPECT_THAT(refusal(folder / "none.pt"), HasSubstr("none.pt: no such file"));
  const std::string whole = read_text(folder / "last.pt");
  std::ofstream(folder / "cut.pt", std::ios::binary) << whole.substr(0, whole.size() / 2);
  EXPECT_EQ(refusal(folder / "cut.pt"),
            "checkpoint " + (folder / "cut.pt").string() +
                ": cannot be read (truncated, or not a checkpoint): expected a zip archive, "
                "found no directory at the file's end");
  Dict foreign;
  foreign["model"] = module_state(task.model());
  save_checkpoint(folder / "foreign.pt", foreign);
  EXPECT_THAT(refusal(folder / "foreign.pt"), HasSubstr("foreign.pt: checkpoint dict: expected the key \"optimizer\""));
}

}  // namespace
}  // namespace strobe::train
