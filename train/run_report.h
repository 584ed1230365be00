// What a run tells while it goes: the text log, TensorBoard's curves, the line of progress. Only rank 0 does.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "train/logger.h"
#include "train/progress.h"
#include "train/run_state.h"
#include "train/task.h"
#include "train/tensorboard.h"
#include "train/trainer.h"

namespace strobe::train {

class RunReport {
 public:
  RunReport(const TrainerOptions& options, std::string score_name, Logger& logger);
  ~RunReport();
  RunReport(const RunReport&) = delete;
  RunReport& operator=(const RunReport&) = delete;

  /// Opens a new event file, where curves are asked for.
  void open_curves(const RunState& state);

  void resumed(const RunState& state);
  void other_processes(int64_t saved);  // the checkpoint's number differs from this run's
  void finished_before();
  void stopped(const RunState& state, int signal, const std::string& checkpoint);
  void out_of_memory(const RunState& state, int64_t batches);
  void not_finite(const RunState& state, int64_t updates);

  /// Whether a point of the curves or the line of progress wants the sums, which may wait for the device.
  bool wants_updates(const RunState& state) const { return speaks_ && (point_due(state) || progress_.due()); }
  void updates(const RunState& state, int64_t batches);

  void epoch(const EpochStats& stats);

  /// `by_updates`: the line names the update.
  void validation(const RunState& state, int64_t epoch, bool by_updates, const Validation& validation);
  void score(const RunState& state, bool is_best);
  void out_of_patience();

 private:
  bool point_due(const RunState& state) const;
  void point(const RunState& state);
  ProgressState progress(const RunState& state, int64_t batches) const;

  const TrainerOptions& options_;
  bool speaks_;  // rank 0; the others' logger writes nothing
  std::string score_name_;
  Logger& logger_;
  ProgressLine progress_;
  std::optional<EventFile> events_;
  EpochTotals plotted_;        // as they were at the last point of the curves
  int64_t plotted_epoch_ = 0;  // whose totals those are
};

}  // namespace strobe::train
