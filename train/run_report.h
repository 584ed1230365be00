// What a run tells while it goes: the text log, TensorBoard's curves, the line of progress. Only rank 0 does.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "train/logger.h"
#include "train/progress.h"
#include "train/run_state.h"
#include "train/task.h"
#include "train/tensorboard.h"
#include "train/trainer.h"

namespace strobe::train {

/// Log lines (X and Y are decimals):
///   Epoch: N, loss: X, time: SECONDS
///   Rate: X target tokens/s, padding: X %, peak memory: X MiB, updates: N, skipped: N
///   Epoch: N, Dev loss: X, <score name>: Y
///   Epoch: N, update: N, Dev loss: X, <score name>: Y   where validate_every_updates asked for the validation
///   -------- Save Best Model! --------   or   Early Stop Left: K
///   -------- Early Stop! --------
/// A trainer with lines of its own overrides them.
class RunReport {
 public:
  RunReport(const TrainerOptions& options, std::string score_name, Logger& logger);
  virtual ~RunReport();
  RunReport(const RunReport&) = delete;
  RunReport& operator=(const RunReport&) = delete;

  /// Opens a new event file, where curves are asked for.
  void open_curves(const RunState& state);

  virtual void resumed(const RunState& state);
  void other_processes(int64_t saved);  // the checkpoint's number differs from this run's
  void finished_before();
  void stopped(const RunState& state, int signal, const std::string& checkpoint);
  void out_of_memory(const RunState& state, int64_t batches);
  void not_finite(const RunState& state, int64_t updates);

  /// Whether a point of the curves or the line of progress wants the sums, which may wait for the device.
  virtual bool wants_updates(const RunState& state) const { return speaks_ && (point_due(state) || progress_.due()); }
  virtual void updates(const RunState& state, int64_t batches);

  virtual void epoch(const EpochStats& stats);

  virtual void validation_begins(const RunState& /*state*/, int64_t /*epoch*/) {}
  /// `by_updates`: the line names the update.
  virtual void validation(const RunState& state, int64_t epoch, bool by_updates, const Validation& validation);
  virtual void score(const RunState& state, bool is_best);
  void out_of_patience();

 protected:
  Logger& logger() { return logger_; }
  bool speaks() const { return speaks_; }
  const TrainerOptions& options() const { return options_; }
  /// A point of a curve of one's own; nothing without curves.
  void scalar(std::string_view tag, int64_t step, double value);
  virtual std::string progress_text(const RunState& state, int64_t batches) const;

 private:
  bool point_due(const RunState& state) const;
  void point(const RunState& state);

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
