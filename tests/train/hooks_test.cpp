// What a task, or a run with files and a report of its own, may change of the course.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include <string>
#include <vector>

#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"
#include "train/run_files.h"
#include "train/run_report.h"

namespace strobe::train {
namespace {

using ::testing::ElementsAre;

/// Decays what nobody else would, in an order of its own, and notes what it is told.
class WatchingTask : public TinyTask {
 public:
  WatchingTask() {
    on_forward = [this](int64_t, int64_t index) { told.push_back("forward " + std::to_string(index)); };
  }
  std::vector<ParameterGroup> parameter_groups(double weight_decay) override {
    NamedTensors biases, weights;
    for (const auto& item : model().named_parameters()) {
      (item.key().ends_with("bias") ? biases : weights).emplace_back(item.key(), item.value());
    }
    return {{biases, weight_decay}, {weights, 0.0}};
  }
  void begin_update(std::span<const int64_t> batches) override {
    told.push_back("begin");
    for (const int64_t batch : batches) told.back().append(" ").append(std::to_string(batch));
  }
  void after_update() override { told.push_back("after"); }

  std::vector<std::string> told;
};

/// Keeps nothing but what it was asked for.
class NoFiles : public RunFiles {
 public:
  RunState resume(Updater&) override { return {}; }
  void save(RunState& state, Occasion occasion, const Updater& updater) override {
    occasions.push_back(std::to_string(static_cast<int>(occasion)) + " at " + std::to_string(state.update));
    optimizer = updater.optimizer_state();
  }
  std::filesystem::path last() const override { return "nowhere"; }

  std::vector<std::string> occasions;
  Dict optimizer;
};

struct Course {
  WatchingTask task;
  NoFiles files;
};

void run(Course& course, TrainerOptions options) {
  const TemporaryFolder folder;
  options.folder = folder.path();
  Logger logger;
  RunReport report(options, "Score", logger);
  train(course.task, options, course.files, report);
}

TEST(Hooks, ATaskKnowsWhichBatchesMakeAnUpdate) {
  Course course;
  TrainerOptions options = tiny_options("");
  options.epochs = 1;
  options.accumulation = 3;  // of 8 batches
  run(course, options);
  EXPECT_THAT(course.task.told,
              ElementsAre("begin 0 1 2", "forward 0", "forward 1", "forward 2", "after", "begin 3 4 5", "forward 3",
                          "forward 4", "forward 5", "after", "begin 6 7", "forward 6", "forward 7", "after"));
}

TEST(Hooks, ATaskGroupsItsParameters) {
  Course course;
  TrainerOptions options = tiny_options("");
  options.epochs = 1;
  run(course, options);
  const List& groups = course.files.optimizer.at("param_groups").as_list();
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].as_dict().at("weight_decay").as_double(), options.optimizer.weight_decay);
  EXPECT_EQ(groups[0].as_dict().at("param_names").as_list()[1].as_string(), "output_bias");
  EXPECT_EQ(groups[1].as_dict().at("weight_decay").as_double(), 0.0);
  EXPECT_EQ(groups[1].as_dict().at("param_names").as_list()[0].as_string(), "hidden_weight");
  EXPECT_EQ(groups[1].as_dict().at("params").as_list()[0].as_int(), 2);
}

TEST(Hooks, FilesKnowWhatACheckpointIsFor) {
  const auto name = [](Occasion occasion, int update) {
    return std::to_string(static_cast<int>(occasion)) + " at " + std::to_string(update);
  };
  Course course;
  course.task.scores = {0.1, 0.3, 0.2};
  TrainerOptions options = tiny_options("");
  options.epochs = 2;  // of 8 updates each
  options.save_every = 6;
  options.validate_every_updates = 5;
  options.validate_every = 2;
  run(course, options);
  using enum Occasion;
  EXPECT_THAT(course.files.occasions,
              ElementsAre(name(kBeforeValidation, 5), name(kBest, 5), name(kAfterValidation, 5), name(kUpdates, 6),
                          name(kEpoch, 8), name(kBeforeValidation, 10), name(kBest, 10), name(kAfterValidation, 10),
                          name(kUpdates, 12), name(kBeforeValidation, 15), name(kAfterValidation, 15),
                          name(kBeforeValidation, 16), name(kEpoch, 16)));
}

}  // namespace
}  // namespace strobe::train
