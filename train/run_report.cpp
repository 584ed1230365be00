#include "train/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace strobe::train {
namespace {

constexpr const char* kEventFolder = "tensorboard";
constexpr int64_t kPlotInterval = 50;  // updates between the points of a curve
constexpr double kMiB = 1024.0 * 1024.0;

double mib(int64_t bytes) { return static_cast<double>(bytes) / kMiB; }

}  // namespace

RunReport::RunReport(const TrainerOptions& options, std::string score_name, Logger& logger)
    : options_(options), speaks_(options.ranks->is_root()), score_name_(std::move(score_name)), logger_(logger) {
  logger_.before_message([this] { progress_.clear(); });
}

RunReport::~RunReport() { logger_.before_message({}); }

void RunReport::open_curves(const RunState& state) {
  if (options_.tensorboard && speaks_) {
    events_.emplace(options_.folder / kEventFolder);
    if (state.update > 0) events_->restart(state.update + 1);
  }
  plotted_ = state.totals;
  plotted_epoch_ = state.epoch;
}

void RunReport::resumed(const RunState& state) {
  logger_.info(fmt::format("Resumed from {}: epoch {}, batch {}, update {}", options_.resume.string(), state.epoch,
                           state.batch, state.update));
}

void RunReport::other_processes(int64_t saved) {
  logger_.warning(fmt::format(
      "The checkpoint is of a run of {} process{}, this one has {}: it goes on with other random numbers, and an "
      "update takes {} batches",
      saved, saved == 1 ? "" : "es", options_.ranks->size(), options_.ranks->size() * options_.accumulation));
}

void RunReport::finished_before() { logger_.info("Nothing is left to train"); }

void RunReport::stopped(const RunState& state, int signal, const std::string& checkpoint) {
  logger_.warning(fmt::format("Stopped by {} in epoch {} after {} updates; {} goes on from here", ::strsignal(signal),
                              state.epoch, state.update, checkpoint));
}

void RunReport::out_of_memory(const RunState& state, int64_t batches) {
  logger_.warning(fmt::format("Out of memory at batch {} of {} of epoch {}: this update is skipped", state.batch,
                              batches, state.epoch));
}

void RunReport::not_finite(const RunState& state, int64_t updates) {
  logger_.warning(fmt::format("Gradients not finite in epoch {}: {} update{} skipped", state.epoch, updates,
                              updates == 1 ? "" : "s"));
}

void RunReport::updates(const RunState& state, int64_t batches) {
  if (point_due(state)) point(state);
  if (progress_.due()) progress_.show(progress_text(state, batches));
}

bool RunReport::point_due(const RunState& state) const { return events_ && state.update % kPlotInterval == 0; }

/// The loss of the updates since the last point.
void RunReport::point(const RunState& state) {
  const EpochTotals& totals = state.totals;
  if (plotted_epoch_ != state.epoch) plotted_ = {};
  events_->scalar("train/loss", state.update,
                  ratio(totals.loss_sum - plotted_.loss_sum, totals.loss_count - plotted_.loss_count));
  events_->scalar("train/lr", state.update, learning_rate(options_.schedule, std::max<int64_t>(state.update, 1)));
  plotted_ = totals;
  plotted_epoch_ = state.epoch;
}

std::string RunReport::progress_text(const RunState& state, int64_t batches) const {
  const EpochTotals& totals = state.totals;
  ProgressState shown;
  shown.epoch = state.epoch;
  shown.epochs = options_.epochs;
  shown.batch = state.batch;
  shown.batches = batches;
  shown.loss = totals.loss();
  shown.lr = learning_rate(options_.schedule, std::max<int64_t>(state.update, 1));
  shown.tokens_per_second = totals.target_tokens_per_second();
  shown.padding = totals.padding_share();
  shown.seconds_left =
      totals.seconds * ratio(static_cast<double>(batches - state.batch), static_cast<double>(state.batch));
  return format_progress(shown);
}

void RunReport::scalar(std::string_view tag, int64_t step, double value) {
  if (events_) events_->scalar(tag, step, value);
}

void RunReport::epoch(const EpochStats& stats) {
  logger_.info(fmt::format("Epoch: {}, loss: {:.6f}, time: {:.3f}", stats.epoch, stats.loss, stats.seconds));
  logger_.info(
      fmt::format("Rate: {:.0f} target tokens/s, padding: {:.1f} %, peak memory: {:.0f} MiB, updates: {}, skipped: {}",
                  stats.target_tokens_per_second, 100.0 * stats.padding, mib(stats.peak_memory), stats.updates,
                  stats.skipped_updates));
  scalar("epoch/loss", stats.epoch, stats.loss);
  scalar("epoch/target_tokens_per_second", stats.epoch, stats.target_tokens_per_second);
  scalar("epoch/padding", stats.epoch, stats.padding);
  scalar("epoch/peak_memory_mib", stats.epoch, mib(stats.peak_memory));
}

void RunReport::validation(const RunState& state, int64_t epoch, bool by_updates, const Validation& validation) {
  const std::string update = by_updates ? fmt::format(", update: {}", state.update) : "";
  logger_.info(fmt::format("Epoch: {}{}, Dev loss: {:.6f}, {}: {:.4f}", epoch, update, validation.loss, score_name_,
                           validation.score));
  scalar("dev/loss", state.update, validation.loss);
  scalar("dev/score", state.update, validation.score);
}

void RunReport::score(const RunState& state, bool is_best) {
  if (is_best) {
    logger_.info("-------- Save Best Model! --------");
  } else if (options_.patience > 0) {
    logger_.info(fmt::format("Early Stop Left: {}", options_.patience - state.bad_validations));
  }
}

void RunReport::out_of_patience() { logger_.info("-------- Early Stop! --------"); }

}  // namespace strobe::train
