// A run's files as `strobe nmt train` has them: the best model, the last state, and as many of those before as asked
// for.
#pragma once

#include <filesystem>

#include "train/run_files.h"
#include "train/task.h"

namespace strobe::train {

/// Throws CheckpointError where `file` is missing, truncated or not of a training run: for what is better known before
/// the data are read.
void require_resumable(const std::filesystem::path& file);

/// model.pth: the best. last.pt: at every other occasion. checkpoint-<update>.pt, where checkpoints are kept: with
/// last.pt, but not before a validation nor on a signal; once both are whole the oldest is removed.
class RunCheckpoints : public RunFiles {
 public:
  RunCheckpoints(Task& task, const TrainerOptions& options) : task_(task), options_(options) {}

  RunState resume(Updater& updater) override;
  void save(RunState& state, Occasion occasion, const Updater& updater) override;
  std::filesystem::path last() const override;

 private:
  void write(const std::filesystem::path& file, const RunState& state, const Updater& updater) const;
  std::filesystem::path numbered(int64_t update) const;
  void remove_oldest(RunState& state) const;

  Task& task_;
  const TrainerOptions& options_;
};

}  // namespace strobe::train
