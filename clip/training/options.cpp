#include "clip/training/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "clip/model/config.h"
#include "strobe/types.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;

struct ByModel {
  double lr, beta1, beta2, eps;
};

/// Those of CLIP's paper (Radford et al. 2021, table 19), as the original assigns them.
ByModel defaults_of(const VisionConfig& vision) {
  if (!vision.is_vit()) return {5.0e-4, 0.9, 0.999, 1.0e-8};
  if (vision.name.starts_with("ViT-L")) return {4.0e-4, 0.9, 0.98, 1.0e-6};
  return {5.0e-4, 0.9, 0.98, 1.0e-6};
}

void require_precision(const std::string& precision) {
  if (precision == "fp16") {
    throw Error(
        "--precision: expected amp, amp_bf16 or fp32, found fp16: it would keep the weights themselves in 16 bits, "
        "where "
        "the optimizer's small steps are lost and accuracy collapses; amp (fp16) and amp_bf16 compute in 16 bits and "
        "keep fp32 weights");
  }
  if (precision != "amp" && precision != "amp_bf16" && precision != "fp32") {
    throw Error("--precision: expected amp, amp_bf16 or fp32, found " + precision);
  }
}

void require_loss(const TrainingOptions& options) {
  if (options.skip_aggregate && (options.gather_with_grad || options.local_loss)) {
    throw Error(
        "--skip-aggregate: contrasts within the process's own batch: expected neither --gather-with-grad nor "
        "--local-loss beside it");
  }
  if (options.distillation && options.teacher_model_name.empty()) {
    throw Error("--distillation: expected --teacher-model-name, the file of a CLIP");
  }
  if (options.distillation && !fs::exists(options.teacher_model_name)) {
    throw Error("--teacher-model-name: expected the file of a CLIP (nothing is fetched from a hub), found " +
                options.teacher_model_name);
  }
}

void require_range(const TrainingOptions& o) {
  const auto at_least = [](const char* option, auto found, auto least) {
    if (!(found >= least)) throw Error(fmt::format("{}: expected at least {}, found {}", option, least, found));
  };
  at_least("--batch-size", o.batch_size, 1);
  at_least("--valid-batch-size", o.valid_batch_size, 1);
  at_least("--context-length", o.context_length, 2);
  at_least("--accum-freq", o.accum_freq, 1);
  at_least("--log-interval", o.log_interval, 1);
  at_least("--num-workers", o.num_workers, 0);
  at_least("--valid-num-workers", o.valid_num_workers, 0);
  at_least("--warmup", o.warmup, 0);
  at_least("--max-steps", o.max_steps, 0);
  if (o.max_steps == 0) at_least("--max-epochs", o.max_epochs, 1);
  if (!(o.mask_ratio >= 0 && o.mask_ratio < 1)) {
    throw Error(fmt::format("--mask-ratio: expected 0 <= ratio < 1, found {}", o.mask_ratio));
  }
  const int64_t most = text_config(o.text_model).max_position_embeddings;
  if (o.context_length > most) {
    throw Error(fmt::format("--context-length: expected at most {}, the positions of the text model, found {}", most,
                            o.context_length));
  }
}

void require_files(const TrainingOptions& o) {
  const auto exists = [](const char* option, const fs::path& path) {
    if (!path.empty() && !fs::exists(path)) throw Error(fmt::format("{}: {} does not exist", option, path.string()));
  };
  if (o.train_data.empty()) throw Error("--train-data: expected the folder of an LMDB, found nothing");
  exists("--train-data", o.train_data);
  exists("--val-data", o.val_data);
  exists("--clip-weight-path", o.clip_weight_path);
  exists("--bert-weight-path", o.bert_weight_path);
  exists("--resume", o.resume);
}

std::string text(bool value) { return value ? "True" : "False"; }
std::string text(int64_t value) { return std::to_string(value); }
/// The shortest digits that give the number back; Python writes 5.0 and 1e-06.
std::string text(double value) {
  const std::string digits = fmt::format("{}", value);
  return digits.find_first_of(".en") == std::string::npos ? digits + ".0" : digits;
}
std::string text(const std::string& value) { return value.empty() ? "None" : value; }
std::string or_none(int64_t value) { return value > 0 ? text(value) : "None"; }

}  // namespace

bool TrainingOptions::writes_files() const {
  std::string lower = logs.string();
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return !lower.empty() && lower != "none";
}

void resolve(TrainingOptions& options) {
  const ByModel defaults = defaults_of(vision_config(options.vision_model));
  options.lr = options.lr.value_or(defaults.lr);
  options.beta1 = options.beta1.value_or(defaults.beta1);
  options.beta2 = options.beta2.value_or(defaults.beta2);
  options.eps = options.eps.value_or(defaults.eps);
  if (options.attn_type.empty()) options.attn_type = options.use_flash_attention ? "imp_flash_attn" : "dotscale";
  require_precision(options.precision);
  require_range(options);
  require_loss(options);
  require_files(options);
}

std::vector<std::pair<std::string, std::string>> parameters(const TrainingOptions& o) {
  std::vector<std::pair<std::string, std::string>> all = {
      {"accum_freq", text(o.accum_freq)},
      {"aggregate", text(!o.skip_aggregate)},
      {"attn_type", text(o.attn_type)},
      {"batch_size", text(o.batch_size)},
      {"bert_weight_path", text(o.bert_weight_path.string())},
      {"beta1", text(o.beta1.value_or(0.0))},
      {"beta2", text(o.beta2.value_or(0.0))},
      {"checkpoint_path", text(o.checkpoints().string())},
      {"clip_weight_path", text(o.clip_weight_path.string())},
      {"context_length", text(o.context_length)},
      {"debug", text(o.debug)},
      {"deterministic", text(o.deterministic)},
      {"distillation", text(o.distillation)},
      {"eps", text(o.eps.value_or(0.0))},
      {"freeze_text", text(o.freeze_text)},
      {"freeze_vision", text(o.freeze_vision)},
      {"gather_with_grad", text(o.gather_with_grad)},
      {"grad_checkpointing", text(o.grad_checkpointing)},
      {"grad_clip_norm", o.grad_clip_norm > 0 ? text(o.grad_clip_norm) : "None"},
      {"kd_loss_weight", text(o.kd_loss_weight)},
      {"local_loss", text(o.local_loss)},
      {"log_interval", text(o.log_interval)},
      {"logs", text(o.logs.string())},
      {"lr", text(o.lr.value_or(0.0))},
      {"mask_ratio", text(o.mask_ratio)},
      {"max_epochs", text(o.max_epochs)},
      {"max_steps", or_none(o.max_steps)},
      {"name", text(o.name)},
      {"num_workers", text(o.num_workers)},
      {"precision", text(o.precision)},
      {"report_training_batch_acc", text(o.report_training_batch_acc)},
      {"reset_data_offset", text(o.reset_data_offset)},
      {"reset_optimizer", text(o.reset_optimizer)},
      {"resume", text(o.resume.string())},
      {"save_epoch_frequency", text(o.save_epoch_frequency)},
      {"save_step_frequency", text(o.save_step_frequency)},
      {"seed", text(static_cast<int64_t>(o.seed))},
      {"skip_aggregate", text(o.skip_aggregate)},
      {"skip_scheduler", text(o.skip_scheduler)},
      {"teacher_model_name", text(o.teacher_model_name)},
      {"text_model", text(o.text_model)},
      {"train_data", text(o.train_data.string())},
      {"use_augment", text(o.use_augment)},
      {"use_bn_sync", text(o.use_bn_sync)},
      {"use_flash_attention", text(o.use_flash_attention)},
      {"val_data", text(o.val_data.string())},
      {"valid_batch_size", text(o.valid_batch_size)},
      {"valid_epoch_interval", or_none(o.valid_epoch_interval)},
      {"valid_num_workers", text(o.valid_num_workers)},
      {"valid_step_interval", or_none(o.valid_step_interval)},
      {"vision_model", text(o.vision_model)},
      {"warmup", text(o.warmup)},
      {"wd", text(o.wd)},
  };
  return all;
}

}  // namespace strobe::clip
