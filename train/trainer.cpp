#include "train/trainer.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/nn/module.h>

#include <chrono>
#include <cmath>
#include <cstring>

#include "train/checkpoint.h"
#include "train/device.h"
#include "train/progress.h"
#include "train/run_state.h"
#include "train/signals.h"
#include "train/tensorboard.h"
#include "train/updater.h"

namespace strobe::train {
namespace {

constexpr const char* kBestFile = "model.pth";
constexpr const char* kLastFile = "last.pt";
constexpr const char* kEventFolder = "tensorboard";
constexpr int64_t kPlotInterval = 50;  // updates between the points of a curve
constexpr double kMiB = 1024.0 * 1024.0;

void validate(const TrainerOptions& options) {
  const auto require = [](bool holds, const char* expected, auto found) {
    if (!holds) throw Error(fmt::format("train: expected {}, found {}", expected, found));
  };
  require(options.epochs >= 1, "epochs >= 1", options.epochs);
  require(options.max_updates >= 0, "max_updates >= 0", options.max_updates);
  require(options.accumulation >= 1, "accumulation >= 1", options.accumulation);
  require(options.clip_norm >= 0, "clip_norm >= 0", options.clip_norm);
  require(options.patience >= 0, "patience >= 0", options.patience);
  require(options.validate_every >= 0, "validate_every >= 0", options.validate_every);
  require(options.save_every >= 0, "save_every >= 0", options.save_every);
  validate(options.schedule);
}

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

class Run {
 public:
  Run(Task& task, const TrainerOptions& options, Logger& logger)
      : task_(task), options_(options), logger_(logger), updater_(task, options) {
    logger_.before_message([this] { progress_.clear(); });
  }
  ~Run() { logger_.before_message({}); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  TrainResult run() {
    if (options_.deterministic) require_determinism(options_.device);
    if (options_.resume.empty()) {
      seed_generators(options_.device, options_.seed);
    } else {
      resume();
      if (is_finished()) logger_.info("Nothing is left to train");
    }
    if (options_.tensorboard) events_.emplace(options_.folder / kEventFolder);
    while (!is_finished() && result_.exit_status == 0) run_epoch();
    if (result_.exit_status == 0 && options_.validate_every == 0) save(kBestFile);
    result_.best_epoch = state_.best_epoch;
    result_.best_score = state_.best_score.value_or(0.0);
    return std::move(result_);
  }

 private:
  using Clock = std::chrono::steady_clock;

  bool out_of_updates() const { return options_.max_updates > 0 && state_.update >= options_.max_updates; }
  bool out_of_patience() const { return options_.patience > 0 && state_.bad_validations >= options_.patience; }
  bool is_finished() const { return state_.epoch > options_.epochs || out_of_updates() || out_of_patience(); }

  void resume() {
    const Dict saved = load_checkpoint(options_.resume);
    try {
      const Dict& trainer = saved.at("trainer").as_dict();
      load_module_state(task_.model(), saved.at("model").as_dict());
      updater_.load_state(saved.at("optimizer").as_dict(), trainer.at("scaler"));
      state_ = run_state_from(trainer);
      set_random_state(options_.device, trainer.at("random").as_dict());
    } catch (const CheckpointError& error) {
      throw CheckpointError("checkpoint " + options_.resume.string() + ": " + error.what());
    }
    updater_.set_totals(state_.totals);
    logger_.info(fmt::format("Resumed from {}: epoch {}, batch {}, update {}", options_.resume.string(), state_.epoch,
                             state_.batch, state_.update));
  }

  void save(const char* name) {
    updater_.read_totals(state_.totals);
    Dict content = task_.describe().as_dict();
    for (const char* reserved : {"model", "optimizer", "trainer"}) {
      if (content.contains(reserved))
        throw Error(fmt::format("train: Task::describe() must not hold \"{}\"", reserved));
    }
    Dict trainer = to_dict(state_);
    trainer["scaler"] = updater_.scaler_state();
    trainer["random"] = random_state(options_.device);
    content["model"] = module_state(task_.model());
    content["optimizer"] = updater_.optimizer_state();
    content["trainer"] = std::move(trainer);
    save_checkpoint(options_.folder / name, content);
  }

  void run_epoch() {
    batches_ = task_.begin_epoch(state_.epoch);
    if (batches_ < 1) throw Error(fmt::format("train: expected batches in epoch {}, found none", state_.epoch));
    reset_peak_memory(options_.device);
    task_.model().train();
    seconds_before_ = state_.totals.seconds;
    start_ = Clock::now();
    plotted_ = state_.totals;
    while (state_.batch < batches_ && !out_of_updates() && signals_.received() == 0) {
      update();
      if (options_.save_every > 0 && state_.update % options_.save_every == 0) save(kLastFile);
    }
    finish_clock();
    const bool is_complete = state_.batch >= batches_;
    if (signals_.received() != 0 && !is_complete) return stop();
    finish_epoch(is_complete);
    if (signals_.received() != 0) stop();
  }

  /// One update from the next batches. Running out of memory costs the update, not the run.
  void update() {
    const int64_t end = std::min(batches_, state_.batch + options_.accumulation);
    try {
      while (state_.batch < end) updater_.accumulate(state_.batch++, state_.totals);
      updater_.apply(learning_rate(options_.schedule, state_.update + 1), state_.totals);
      state_.update += 1;
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error)) throw;
      updater_.discard();
      release_cached_memory(options_.device);
      state_.totals.out_of_memory += 1;
      logger_.warning(fmt::format("Out of memory at batch {} of {} of epoch {}: this update is skipped", state_.batch,
                                  batches_, state_.epoch));
    }
    if (events_ && state_.update % kPlotInterval == 0) plot_updates();
    if (progress_.due()) show_progress();
  }

  /// The loss of the updates since the last point.
  void plot_updates() {
    read_totals();
    const EpochTotals& totals = state_.totals;
    events_->scalar("train/loss", state_.update,
                    ratio(totals.loss_sum - plotted_.loss_sum, totals.loss_count - plotted_.loss_count));
    events_->scalar("train/lr", state_.update, learning_rate(options_.schedule, std::max<int64_t>(state_.update, 1)));
    plotted_ = totals;
  }

  void plot_epoch(const EpochStats& stats) {
    events_->scalar("epoch/loss", stats.epoch, stats.loss);
    events_->scalar("epoch/target_tokens_per_second", stats.epoch, stats.target_tokens_per_second);
    events_->scalar("epoch/padding", stats.epoch, stats.padding);
    events_->scalar("epoch/peak_memory_mib", stats.epoch, static_cast<double>(stats.peak_memory) / kMiB);
    if (!stats.validation) return;
    events_->scalar("dev/loss", stats.epoch, stats.validation->loss);
    events_->scalar("dev/score", stats.epoch, stats.validation->score);
  }

  void show_progress() {
    read_totals();
    const EpochTotals& totals = state_.totals;
    finish_clock();
    ProgressState shown;
    shown.epoch = state_.epoch;
    shown.epochs = options_.epochs;
    shown.batch = state_.batch;
    shown.batches = batches_;
    shown.loss = ratio(totals.loss_sum, totals.loss_count);
    shown.lr = learning_rate(options_.schedule, std::max<int64_t>(state_.update, 1));
    shown.tokens_per_second = ratio(static_cast<double>(totals.target_tokens), totals.seconds);
    shown.padding = ratio(static_cast<double>(totals.padding), static_cast<double>(totals.slots));
    shown.seconds_left =
        totals.seconds * ratio(static_cast<double>(batches_ - state_.batch), static_cast<double>(state_.batch));
    progress_.show(shown);
  }

  /// Brings the sums up to date and reports updates that were skipped since the last time.
  void read_totals() {
    const int64_t known = state_.totals.not_finite;
    updater_.read_totals(state_.totals);
    if (const int64_t fresh = state_.totals.not_finite - known; fresh > 0) {
      logger_.warning(fmt::format("Gradients not finite in epoch {}: {} update{} skipped", state_.epoch, fresh,
                                  fresh == 1 ? "" : "s"));
    }
  }

  void finish_clock() {
    synchronize(options_.device);
    state_.totals.seconds = seconds_before_ + std::chrono::duration<double>(Clock::now() - start_).count();
  }

  /// What follows the last update of an epoch, or of the run.
  void finish_epoch(bool is_complete) {
    read_totals();
    EpochStats stats = describe_epoch();
    const bool is_last = state_.epoch >= options_.epochs || out_of_updates();
    if (is_complete) {
      state_.epoch += 1;
      state_.batch = 0;
      state_.totals = {};
      updater_.set_totals(state_.totals);
    }
    if (options_.validate_every > 0 && (stats.epoch % options_.validate_every == 0 || is_last)) {
      stats.validation = run_validation(stats.epoch);
    }
    if (events_) plot_epoch(stats);
    save(kLastFile);
    if (out_of_patience()) logger_.info("-------- Early Stop! --------");
    result_.epochs.push_back(stats);
  }

  EpochStats describe_epoch() {
    const EpochTotals& totals = state_.totals;
    EpochStats stats;
    stats.epoch = state_.epoch;
    stats.loss = ratio(totals.loss_sum, totals.loss_count);
    stats.seconds = totals.seconds;
    stats.target_tokens = totals.target_tokens;
    stats.source_tokens = totals.source_tokens;
    stats.target_tokens_per_second = ratio(static_cast<double>(totals.target_tokens), totals.seconds);
    stats.padding = ratio(static_cast<double>(totals.padding), static_cast<double>(totals.slots));
    stats.updates = totals.updates - totals.not_finite;
    stats.skipped_updates = totals.not_finite + totals.out_of_memory;
    stats.peak_memory = peak_memory(options_.device);
    logger_.info(fmt::format("Epoch: {}, loss: {:.6f}, time: {:.3f}", stats.epoch, stats.loss, stats.seconds));
    logger_.info(fmt::format(
        "Rate: {:.0f} target tokens/s, padding: {:.1f} %, peak memory: {:.0f} MiB, updates: {}, skipped: {}",
        stats.target_tokens_per_second, 100.0 * stats.padding, static_cast<double>(stats.peak_memory) / kMiB,
        stats.updates, stats.skipped_updates));
    // A loss scale that starts too high skips a few updates by design.
    if (stats.updates == 0 && options_.precision != Precision::kFp16) {
      throw Error(fmt::format("train: no update of epoch {} succeeded ({} not finite, {} out of memory)", stats.epoch,
                              totals.not_finite, totals.out_of_memory));
    }
    return stats;
  }

  Validation run_validation(int64_t epoch) {
    Validation validation;
    task_.model().eval();
    {
      const at::NoGradGuard no_grad;
      const AutocastGuard autocast(options_.device.type(), options_.precision);
      validation = task_.validate();
    }
    task_.model().train();
    logger_.info(fmt::format("Epoch: {}, Dev loss: {:.6f}, {}: {:.4f}", epoch, validation.loss, task_.score_name(),
                             validation.score));
    const bool is_best = state_.best_score ? validation.score > *state_.best_score : !std::isnan(validation.score);
    if (is_best) {
      state_.best_score = validation.score;
      state_.best_epoch = epoch;
      state_.bad_validations = 0;
      save(kBestFile);
      logger_.info("-------- Save Best Model! --------");
    } else {
      state_.bad_validations += 1;
      if (options_.patience > 0) {
        logger_.info(fmt::format("Early Stop Left: {}", options_.patience - state_.bad_validations));
      }
    }
    return validation;
  }

  void stop() {
    const int signal = signals_.received();
    save(kLastFile);
    logger_.warning(fmt::format("Stopped by {} in epoch {} after {} updates; {} goes on from here", ::strsignal(signal),
                                state_.epoch, state_.update, (options_.folder / kLastFile).string()));
    result_.exit_status = 128 + signal;
  }

  Task& task_;
  const TrainerOptions& options_;
  Logger& logger_;
  SignalGuard signals_;
  ProgressLine progress_;
  Updater updater_;
  RunState state_;
  TrainResult result_;
  std::optional<EventFile> events_;
  EpochTotals plotted_;          // as they were at the last point of the curves
  int64_t batches_ = 0;          // of the present epoch
  double seconds_before_ = 0.0;  // spent on the present epoch before it was resumed
  Clock::time_point start_;
};

}  // namespace

TrainResult train(Task& task, const TrainerOptions& options, Logger& logger) {
  validate(options);
  return Run(task, options, logger).run();
}

}  // namespace strobe::train
