#include "clip/training/report.h"

#include <fmt/format.h>

#include <algorithm>

namespace strobe::clip {
namespace {

std::string format_recall(const char* name, const Recall& recall) {
  return fmt::format("{} R@1: {:.2f} R@5: {:.2f} R@10: {:.2f} Mean: {:.2f}", name, recall.at1, recall.at5, recall.at10,
                     recall.mean());
}

}  // namespace

std::string format_line(const TrainingLine& line) {
  std::string accuracies;
  if (line.image_to_text) {
    accuracies = fmt::format("Image2Text Acc: {:.2f} | Text2Image Acc: {:.2f} | ", 100 * *line.image_to_text,
                             100 * line.text_to_image.value_or(0.0));
  }
  return fmt::format(
      "Global Steps: {}/{} | Train Epoch: {} [{}/{} ({:.0f}%)] | Loss: {:.6f} | {}Data Time: {:.3f}s | Batch Time: "
      "{:.3f}s | LR: {:5f} | logit_scale: {:.3f} | Global Batch Size: {}",
      line.step, line.max_steps, line.epoch, line.samples, line.samples_per_epoch, line.percent, line.loss, accuracies,
      line.data_seconds, line.batch_seconds, line.lr, line.logit_scale, line.global_batch_size);
}

std::string format_validation(const ValidationResult& result, int64_t epoch, int64_t step, double logit_scale) {
  return fmt::format(
      "Validation Result (epoch {} @ {} steps) | Valid Loss: {:.6f} | Image2Text Acc: {:.2f} | Text2Image Acc: {:.2f} "
      "| "
      "logit_scale: {:.3f} | Valid Batch Size: {}",
      epoch, step, result.loss, 100 * result.image_to_text, 100 * result.text_to_image, logit_scale, result.batch_size);
}

std::string format_recall(const ValidationResult& result, int64_t epoch, int64_t step) {
  return fmt::format("Validation Recall (epoch {} @ {} steps) | {} | {} | {} Images, {} Texts", epoch, step,
                     format_recall("Text2Image", result.text_retrieves_image),
                     format_recall("Image2Text", result.image_retrieves_text), result.images, result.texts);
}

ClipReport::ClipReport(const TrainingOptions& options, const train::TrainerOptions& trainer, const ClipTask& task,
                       train::Logger& logger)
    : RunReport(trainer, "Mean Recall", logger), clip_(options), task_(task) {}

bool ClipReport::is_line_due(const train::RunState& state) const {
  return speaks() && state.update % clip_.log_interval == 0 && state.update != last_update_;
}

bool ClipReport::wants_updates(const train::RunState& state) const {
  return is_line_due(state) || RunReport::wants_updates(state);
}

void ClipReport::updates(const train::RunState& state, int64_t batches) {
  if (is_line_due(state)) logger().info(format_line(line(state, batches)));
  RunReport::updates(state, batches);
}

TrainingLine ClipReport::line(const train::RunState& state, int64_t batches) {
  const UpdateFigures& figures = task_.last_update();
  const bool is_new_epoch = epoch_ != state.epoch;
  const auto updates = static_cast<double>(
      std::max<int64_t>(1, std::min(clip_.log_interval, state.totals.updates + state.totals.out_of_memory)));
  TrainingLine line;
  line.step = state.update;
  line.max_steps = options().schedule.total_updates;
  line.epoch = state.epoch;
  line.global_batch_size = clip_.batch_size * clip_.accum_freq * options().ranks->size();
  line.samples = state.batch * clip_.batch_size;
  line.samples_per_epoch = task_.training().samples_per_epoch();
  line.percent = 100.0 * static_cast<double>(state.batch) / static_cast<double>(batches);
  line.loss = figures.loss.item<double>();
  if (figures.image_to_text.defined()) {
    line.image_to_text = figures.image_to_text.item<double>();
    line.text_to_image = figures.text_to_image.item<double>();
  }
  line.data_seconds = (task_.data_seconds() - last_data_seconds_) / updates;
  line.batch_seconds = (state.totals.seconds - (is_new_epoch ? 0.0 : last_seconds_)) / updates;
  line.lr = learning_rate(options().schedule, std::max<int64_t>(state.update, 1));
  line.logit_scale = task_.logit_scale();
  epoch_ = state.epoch;
  last_update_ = state.update;
  last_seconds_ = state.totals.seconds;
  last_data_seconds_ = task_.data_seconds();
  return line;
}

std::string ClipReport::progress_text(const train::RunState& state, int64_t batches) const {
  const train::EpochTotals& totals = state.totals;
  const double left =
      totals.seconds * train::ratio(static_cast<double>(batches - state.batch), static_cast<double>(state.batch));
  return fmt::format("epoch {}/{}  step {}/{}  loss {:.4f}  {:.1f} samples/s  left {}", state.epoch, options().epochs,
                     state.update, options().schedule.total_updates, totals.loss(), totals.target_tokens_per_second(),
                     train::format_duration(left));
}

void ClipReport::epoch(const train::EpochStats& stats) {
  constexpr double kMiB = 1024.0 * 1024.0;
  const double peak = static_cast<double>(stats.peak_memory) / kMiB;
  logger().info(
      fmt::format("Epoch {} done | Loss: {:.6f} | Time: {:.1f}s | Samples/s: {:.1f} | Peak Memory: {:.0f} MiB | "
                  "Skipped Steps: {} | "
                  "Unreadable Samples: {}",
                  stats.epoch, stats.loss, stats.seconds, stats.target_tokens_per_second, peak, stats.skipped_updates,
                  task_.training().skipped()));
  scalar("epoch/loss", stats.epoch, stats.loss);
  scalar("epoch/samples_per_second", stats.epoch, stats.target_tokens_per_second);
  scalar("epoch/peak_memory_mib", stats.epoch, peak);
}

void ClipReport::validation_begins(const train::RunState& state, int64_t epoch) {
  logger().info(fmt::format("Begin to eval on validation set (epoch {} @ {} steps)...", epoch, state.update));
}

void ClipReport::validation(const train::RunState& state, int64_t epoch, bool, const train::Validation&) {
  const ValidationResult& result = task_.last_validation();
  logger().info(format_validation(result, epoch, state.update, task_.logit_scale()));
  logger().info(format_recall(result, epoch, state.update));
  scalar("dev/loss", state.update, result.loss);
  scalar("dev/image2text_acc", state.update, result.image_to_text);
  scalar("dev/text2image_acc", state.update, result.text_to_image);
  scalar("dev/text2image_mean_recall", state.update, result.text_retrieves_image.mean());
  scalar("dev/image2text_mean_recall", state.update, result.image_retrieves_text.mean());
}

}  // namespace strobe::clip
