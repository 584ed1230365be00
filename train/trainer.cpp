#include "train/trainer.h"

#include <fmt/format.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <chrono>

#include "train/device.h"
#include "train/distributed/tally.h"
#include "train/run_checkpoints.h"
#include "train/run_report.h"
#include "train/signals.h"
#include "train/updater.h"
#include "train/validation.h"

namespace strobe::train {
namespace {

EpochStats stats_of(const RunState& state, at::Device device, Communicator& ranks) {
  const EpochTotals& totals = state.totals;
  EpochStats stats;
  stats.epoch = state.epoch;
  stats.loss = totals.loss();
  stats.seconds = totals.seconds;
  stats.target_tokens = totals.target_tokens;
  stats.source_tokens = totals.source_tokens;
  stats.target_tokens_per_second = totals.target_tokens_per_second();
  stats.padding = totals.padding_share();
  stats.updates = totals.updates - totals.not_finite;
  stats.skipped_updates = totals.not_finite + totals.out_of_memory;
  stats.peak_memory = ranks.max(peak_memory(device));
  return stats;
}

class Run {
 public:
  Run(Task& task, const TrainerOptions& options, RunFiles& files, RunReport& report)
      : task_(task),
        options_(options),
        ranks_(*options.ranks),
        updater_(task, options),
        files_(files),
        report_(report) {}

  TrainResult run() {
    start();
    while (is_left() && signal_ == 0) run_epoch();
    exchange_signal();
    if (signal_ != 0) {
      stop(signal_);
    } else if (!state_.best_score) {
      save(Occasion::kBest);
    }
    result_.best_epoch = state_.best_epoch;
    result_.best_update = state_.best_update;
    result_.best_score = state_.best_score.value_or(0.0);
    return std::move(result_);
  }

 private:
  using Clock = std::chrono::steady_clock;

  bool out_of_updates() const { return options_.max_updates > 0 && state_.update >= options_.max_updates; }
  bool is_finished() const {
    return state_.epoch > options_.epochs || out_of_updates() || is_out_of_patience(options_, state_);
  }

  /// The last validation too: a signal may have come before it.
  bool is_left() const { return !is_finished() || (state_.batch > 0 && is_due_at_end(options_, state_)); }

  void start() {
    if (options_.deterministic) require_determinism(options_.device);
    if (options_.resume.empty()) {
      seed_generators(options_.device, seed_of_rank(options_.seed, ranks_.rank()));
    } else {
      state_ = files_.resume(updater_);
      updater_.set_totals(state_.totals);
      report_.resumed(state_);
      if (state_.processes != ranks_.size()) report_.other_processes(state_.processes);
      if (!is_left()) report_.finished_before();
    }
    state_.processes = ranks_.size();
    ranks_.broadcast_state(task_.model());
    report_.open_curves(state_);
  }

  /// The present epoch from where it stands. A signal ends it between two updates; whatever was due then is due again
  /// when the run is resumed.
  void run_epoch() {
    batches_ = task_.begin_epoch(state_.epoch);
    if (batches_ < 1) throw Error(fmt::format("train: expected batches in epoch {}, found none", state_.epoch));
    if (const int64_t most = ranks_.max(batches_); most != ranks_.min(batches_)) {
      throw Error(
          fmt::format("train: expected the same batches in all processes, found up to {} in epoch {}, {} in rank {}",
                      most, state_.epoch, batches_, ranks_.rank()));
    }
    reset_peak_memory(options_.device);
    task_.model().train();
    start_clock();
    while (state_.batch < batches_ && !is_finished()) {
      if (signal_ != 0) return read_sums();
      if (is_due_by_updates(options_, state_)) {
        read_sums();
        save(Occasion::kBeforeValidation);
        validate(state_.epoch, /*by_updates=*/true);
        save(Occasion::kAfterValidation);
        start_clock();
      } else if (update() && is_save_due(options_, state_) && !is_due_by_updates(options_, state_)) {
        read_sums();
        save(Occasion::kUpdates);
        start_clock();
      }
    }
    read_sums();
    if (signal_ == 0) finish_epoch();
  }

  /// One update from the next batches; true where it was made. Running out of memory costs the update, not the run.
  bool update() {
    const int64_t begin = state_.batch;
    state_.batch = std::min(batches_, begin + options_.accumulation * ranks_.size());
    const Tally tally = updater_.accumulate(begin, state_.batch, [this] { return signals_.received(); });
    signal_ = static_cast<int>(tally.signal);
    const bool made = tally.out_of_memory == 0;
    if (made) {
      updater_.apply(learning_rate(options_.schedule, state_.update + 1), tally, state_.totals);
      state_.update += 1;
    } else {
      updater_.discard();
      release_cached_memory(options_.device);
      state_.totals.out_of_memory += 1;
      report_.out_of_memory(state_, batches_);
    }
    if (report_.wants_updates(state_)) {
      read_sums();
      report_.updates(state_, batches_);
    }
    return made;
  }

  /// What follows the last update of an epoch, or of the run.
  void finish_epoch() {
    EpochStats stats = stats_of(state_, options_.device, ranks_);
    report_.epoch(stats);
    require_progress(stats);
    const bool is_last = state_.epoch >= options_.epochs || is_finished();
    const bool by_epochs = state_.batch >= batches_ && is_due_by_epochs(options_, state_, stats.epoch);
    const bool is_due =
        by_epochs || is_due_by_updates(options_, state_) || (is_last && is_due_at_end(options_, state_));
    if (is_due) save(Occasion::kBeforeValidation);
    if (state_.batch >= batches_) begin_next_epoch();
    if (is_due) {
      stats.validation = validate(stats.epoch, is_due_by_updates(options_, state_) && !by_epochs);
    }
    save(Occasion::kEpoch);
    start_clock();
    if (is_out_of_patience(options_, state_)) report_.out_of_patience();
    result_.epochs.push_back(stats);
  }

  void begin_next_epoch() {
    state_.epoch += 1;
    state_.batch = 0;
    state_.totals = {};
    updater_.set_totals(state_.totals);
  }

  /// A loss scale that starts too high skips a few updates by design.
  void require_progress(const EpochStats& stats) const {
    if (stats.updates > 0 || options_.precision == Precision::kFp16) return;
    throw Error(fmt::format("train: no update of epoch {} succeeded ({} not finite, {} out of memory)", stats.epoch,
                            state_.totals.not_finite, state_.totals.out_of_memory));
  }

  Validation validate(int64_t epoch, bool by_updates) {
    report_.validation_begins(state_, epoch);
    const Validation validation = run_validation(task_, options_);
    exchange_signal();
    report_.validation(state_, epoch, by_updates, validation);
    const bool is_best = note_score(state_, epoch, validation.score);
    if (is_best) save(Occasion::kBest);
    report_.score(state_, is_best);
    return validation;
  }

  void save(Occasion occasion) { files_.save(state_, occasion, updater_); }

  void stop(int signal) {
    save(Occasion::kSignal);
    report_.stopped(state_, signal, files_.last().string());
    result_.exit_status = 128 + signal;
  }

  /// Brings the sums and the time up to date and reports updates that were skipped since the last call.
  void read_sums() {
    const int64_t known = state_.totals.not_finite;
    updater_.read_totals(state_.totals);
    synchronize(options_.device);
    const Clock::time_point now = Clock::now();
    state_.totals.seconds += std::chrono::duration<double>(now - since_).count();
    since_ = now;
    if (const int64_t fresh = state_.totals.not_finite - known; fresh > 0) report_.not_finite(state_, fresh);
  }

  /// A signal may reach one process or all: what they have agreed on counts, so that they stop at the same update.
  void exchange_signal() { signal_ = static_cast<int>(ranks_.max(signals_.received())); }

  /// After what does not count as training: validations and checkpoints.
  void start_clock() { since_ = Clock::now(); }

  Task& task_;
  const TrainerOptions& options_;
  Communicator& ranks_;
  SignalGuard signals_;
  Updater updater_;
  RunFiles& files_;
  RunReport& report_;
  RunState state_;
  TrainResult result_;
  int64_t batches_ = 0;      // of the present epoch
  int signal_ = 0;           // that ends the run
  Clock::time_point since_;  // what totals.seconds does not yet hold
};

TrainerOptions resolve(const TrainerOptions& options, Task& task) {
  using Kind = ScheduleOptions::Kind;
  validate(options);
  TrainerOptions resolved = options;
  const bool is_cosine = options.schedule.kind == Kind::kCosine || options.schedule.kind == Kind::kClipCosine;
  if (is_cosine && options.schedule.total_updates == 0) {
    resolved.schedule.total_updates = planned_updates(options, task.begin_epoch(1));
  }
  validate(resolved.schedule);
  return resolved;
}

}  // namespace

TrainResult train(Task& task, const TrainerOptions& options, Logger& logger) {
  const TrainerOptions resolved = resolve(options, task);
  RunCheckpoints files(task, resolved);
  RunReport report(resolved, task.score_name(), logger);
  return Run(task, resolved, files, report).run();
}

TrainResult train(Task& task, const TrainerOptions& options, RunFiles& files, RunReport& report) {
  const TrainerOptions resolved = resolve(options, task);
  return Run(task, resolved, files, report).run();
}

}  // namespace strobe::train
