#include <ATen/Context.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <csignal>

#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"
#include "train/checkpoint.h"

namespace strobe::train {
namespace {

class Gpu : public ::testing::TestWithParam<Precision> {
 protected:
  void SetUp() override {
    if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  }
  static TinyTask task() {
    TinyTask::Options options;
    options.dropout = 0.3;
    options.device = at::Device(at::kCUDA, 0);
    return TinyTask(options);
  }
  static TrainerOptions options(const TemporaryFolder& folder) {
    TrainerOptions options = tiny_options(folder.path());
    options.device = at::Device(at::kCUDA, 0);
    options.precision = GetParam();
    options.epochs = 3;
    options.clip_norm = 1.0;
    options.deterministic = true;
    return options;
  }
};

TEST_P(Gpu, Learns) {
  const TemporaryFolder folder;
  TinyTask learner = task();
  TrainerOptions twenty = options(folder);
  twenty.epochs = 20;
  const TrainResult result = train_quietly(learner, twenty);
  EXPECT_LT(result.epochs.back().loss, 0.7 * result.epochs.front().loss);
  EXPECT_GT(result.epochs.back().peak_memory, 0);
}

TEST_P(Gpu, ResumesBitForBit) {
  const TemporaryFolder straight_folder, folder;
  TinyTask straight = task(), stopped = task(), resumed = task();
  train_quietly(straight, options(straight_folder));
  stopped.on_forward = [](int64_t epoch, int64_t index) {
    if (epoch == 2 && index == 3) std::raise(SIGTERM);
  };
  EXPECT_EQ(train_quietly(stopped, options(folder)).exit_status, 128 + SIGTERM);
  TrainerOptions again = options(folder);
  again.resume = folder / "last.pt";
  train_quietly(resumed, again);
  EXPECT_TRUE(at::equal(flat_weights(resumed.model()), flat_weights(straight.model())));
}

TEST_P(Gpu, SkipsWhatIsNotFinite) {
  const TemporaryFolder folder;
  TinyTask faulty = task();
  faulty.loss_factor = [](int64_t epoch, int64_t index) {
    return epoch == 2 && index == 3 ? std::numeric_limits<double>::infinity() : 1.0;
  };
  const TrainResult result = train_quietly(faulty, options(folder));
  EXPECT_GE(result.epochs[1].skipped_updates, 1);
  EXPECT_TRUE(std::isfinite(result.epochs[2].loss));
}

TEST_P(Gpu, CheckpointsMoveToTheCpu) {
  const TemporaryFolder folder;
  TinyTask learner = task(), on_cpu;
  train_quietly(learner, options(folder));
  load_module_state(on_cpu.model(), load_checkpoint(folder / "last.pt").at("model").as_dict());
  EXPECT_TRUE(at::equal(flat_weights(on_cpu.model()), flat_weights(learner.model()).cpu()));
}

INSTANTIATE_TEST_SUITE_P(Precisions, Gpu, ::testing::Values(Precision::kFp32, Precision::kBf16, Precision::kFp16),
                         [](const auto& info) { return precision_name(info.param); });

}  // namespace
}  // namespace strobe::train
