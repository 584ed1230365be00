// The files of a run as the original names them (cn_clip, training/main.py and train.py).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "clip/checkpoint/checkpoint.h"
#include "clip/training/options.h"
#include "clip/training/task.h"
#include "train/run_files.h"

namespace strobe::clip {

/// {folder}/checkpoints/epoch{E}.pt after epochs, epoch_{E}_{S}.pt after steps, epoch_latest.pt with either and on a
/// signal; each {"epoch", "step", "name", "state_dict", "optimizer"} and "trainer", what a run needs besides to go on
/// bit for bit. epoch_latest.pt is a second name of the file written with it, where the file system has such.
class ClipFiles : public train::RunFiles {
 public:
  /// `trainer` and `task` must outlive this.
  ClipFiles(const TrainingOptions& options, const train::TrainerOptions& trainer, ClipTask& task,
            train::Logger& logger);

  /// From a file of ours, within an epoch too. From one of the original's at the epoch that it says; within it where
  /// its steps say so (the original passes over the rest of that epoch).
  train::RunState resume(train::Updater& updater) override;
  void save(train::RunState& state, train::Occasion occasion, const train::Updater& updater) override;
  std::filesystem::path last() const override;

 private:
  train::RunState position(const ClipCheckpoint& checkpoint) const;
  train::RunState rescaled(train::RunState state, const train::Dict& trainer) const;
  void write(const train::RunState& state, int64_t epoch, const std::vector<std::string>& names,
             const train::Updater& updater) const;
  bool is_epoch_due(const train::RunState& state, int64_t epoch) const;
  int64_t batches_per_update() const;

  const TrainingOptions& options_;
  const train::TrainerOptions& trainer_;
  ClipTask& task_;
  train::Logger& logger_;
  int64_t saved_step_ = 0;  // the last that has a file of its own
};

}  // namespace strobe::clip
