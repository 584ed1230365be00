// The checkpoints that a run leaves in its folder and goes on from.
#pragma once

#include <filesystem>

#include "train/run_state.h"
#include "train/task.h"
#include "train/trainer_options.h"
#include "train/updater.h"

namespace strobe::train {

/// Throws CheckpointError where `file` is missing, truncated or not of a training run: for what is better known before
/// the data are read.
void require_resumable(const std::filesystem::path& file);

/// Whether save_every asks for a checkpoint after the present update.
bool is_save_due(const TrainerOptions& options, const RunState& state);

/// All processes call these together; rank 0 writes.
class RunCheckpoints {
 public:
  RunCheckpoints(Task& task, const TrainerOptions& options, Updater& updater)
      : task_(task), options_(options), updater_(updater) {}

  /// Model, optimiser, loss scale and random state from options.resume; returns the run's state.
  RunState resume();

  /// model.pth.
  void save_best(const RunState& state) const;

  /// last.pt.
  void save_last(const RunState& state) const;

  /// last.pt and, where checkpoints are kept, checkpoint-<update>.pt; once both are whole the oldest is removed.
  void save(RunState& state) const;

  std::filesystem::path last() const;

 private:
  void restore_random_state(const Dict& trainer, int64_t processes) const;
  void write(const std::filesystem::path& file, const RunState& state) const;
  std::filesystem::path numbered(int64_t update) const;
  void remove_oldest(RunState& state) const;

  Task& task_;
  const TrainerOptions& options_;
  Updater& updater_;
};

}  // namespace strobe::train
