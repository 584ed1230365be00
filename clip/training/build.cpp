#include "clip/training/build.h"

#include <fmt/format.h>

#include <algorithm>

#include "clip/checkpoint/checkpoint.h"
#include "clip/checkpoint/load.h"
#include "clip/checkpoint/pretrained.h"
#include "clip/checkpoint/towers.h"
#include "clip/text/installed_package.h"
#include "clip/training/loader_batches.h"
#include "train/device.h"

namespace strobe::clip {
namespace {

using ScheduleKind = train::ScheduleOptions::Kind;

/// cuDNN's and the CPU's convolutions are faster with the channels last.
at::MemoryFormat image_format(const VisionConfig& vision) {
  return vision.is_vit() ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
}

/// The weights of one tower; the file may hold more than those.
void load_tower(Clip& model, const train::Dict& weights, const char* tower, const std::filesystem::path& file,
                train::Logger& logger) {
  const LoadReport report = load_clip_weights(*model, weights, {.strict = false});
  const auto loaded = weights.size() - report.unexpected.size();
  logger.info(fmt::format("Loaded {} tensors of the {} tower from {}", loaded, tower, file.string()));
  if (loaded == 0) throw Error(fmt::format("{}: holds no weights of a {} tower", file.string(), tower));
}

std::shared_ptr<const PairDataset> open_data(const std::filesystem::path& folder, const char* split,
                                             train::Logger& logger) {
  auto dataset = std::make_shared<const PairDataset>(folder);
  logger.info(
      fmt::format("{} LMDB file contains {} images and {} pairs.", split, dataset->num_images(), dataset->num_pairs()));
  return dataset;
}

}  // namespace

Clip build_model(const TrainingOptions& options, at::Device device, const std::shared_ptr<train::Communicator>& ranks,
                 train::Logger& logger) {
  train::seed_generators(device, options.seed);
  if (!options.deterministic) train::tune_convolutions();
  const VisionConfig& vision = vision_config(options.vision_model);
  Clip model(vision, text_config(options.text_model),
             ClipOptions{.attn_type = options.attn_type, .grad_checkpointing = options.grad_checkpointing});
  const std::filesystem::path &clip = options.clip_weight_path, &bert = options.bert_weight_path;
  if (!clip.empty()) load_tower(model, read_openai_weights(clip), "vision", clip, logger);
  if (!bert.empty()) load_tower(model, read_bert_weights(bert), "text", bert, logger);
  model->to(device);
  if (options.grad_checkpointing) logger.info("Grad-checkpointing activated.");
  if (options.attn_type != "dotscale") logger.info(fmt::format("Using FlashAttention ({}).", options.attn_type));
  if (options.freeze_vision) {
    model->freeze_vision();
    logger.info("The visual encoder is freezed during training.");
  }
  if (options.freeze_text) {
    model->freeze_text();
    logger.info("The text encoder is freezed during training.");
  }
  if (options.use_bn_sync && ranks->size() > 1) {
    model->synchronise_batch_norms([ranks](const at::Tensor& row) { return ranks->all_gather(row); });
  }
  if (options.mask_ratio > 0 && !vision.is_vit()) {
    logger.info(
        "Note: mask_ratio > 0 (FLIP strategy) is currently only implemented for VisualTransformer. It will not "
        "function "
        "for ResNet backbone.");
  }
  return model;
}

Clip build_teacher(const TrainingOptions& options, at::Device device, train::Logger& logger) {
  if (!options.distillation) return nullptr;
  const train::Dict state = read_clip_weights(options.teacher_model_name).state;
  const Towers towers = infer_towers(state);
  const int64_t resolution = vision_config(options.vision_model).image_resolution;
  if (towers.vision.image_resolution != resolution) {
    throw Error(
        fmt::format("--teacher-model-name: {}: expected a teacher of {} pixels a side, as --vision-model {} has, "
                    "found {}",
                    options.teacher_model_name, resolution, options.vision_model, towers.vision.image_resolution));
  }
  Clip teacher(towers.vision, towers.text, ClipOptions{.attn_type = options.attn_type, .grad_checkpointing = false});
  load_clip_weights(*teacher, state);
  for (at::Tensor& parameter : teacher->parameters()) parameter.requires_grad_(false);
  teacher->to(device);
  teacher->eval();
  logger.info(fmt::format("Teacher model loaded from {} ({})", options.teacher_model_name, describe(towers)));
  return teacher;
}

Data build_data(const TrainingOptions& options, at::Device device, const train::Communicator& ranks,
                const std::shared_ptr<train::Logger>& logger) {
  const auto tokenizer =
      std::make_shared<const BertTokenizer>(options.vocabulary.empty() ? default_vocabulary() : options.vocabulary);
  const Tokenize tokenize = [tokenizer, length = options.context_length](const std::string& text, int64_t* ids) {
    const at::Tensor row = tokenizer->tokenize({normalize_caption(text)}, length);
    const int64_t* begin = row.const_data_ptr<int64_t>();
    std::copy(begin, begin + length, ids);
    return static_cast<int32_t>(length - std::count(begin, begin + length, tokenizer->pad_id()));
  };
  const VisionConfig& vision = vision_config(options.vision_model);
  LoaderBatches::Options loader;
  loader.device = device;
  loader.format = image_format(vision);
  loader.loader.resolution = static_cast<int>(vision.image_resolution);
  loader.loader.context_length = options.context_length;
  loader.loader.pin_memory = device.is_cuda();
  loader.loader.rank = ranks.rank();
  loader.loader.world_size = ranks.size();
  loader.loader.seed = options.seed;
  const auto make = [&](std::shared_ptr<const PairDataset> dataset, const char* split) {
    return std::make_unique<LoaderBatches>(std::move(dataset), tokenize, loader,
                                           [logger, split](const std::string& key, const std::string& why) {
                                             logger->warning(fmt::format("{}: sample {} skipped: {}", split, key, why));
                                           });
  };
  Data data;
  loader.loader.workers = static_cast<int>(std::max<int64_t>(1, options.num_workers));
  loader.loader.batch_size = options.batch_size;
  loader.loader.batches_ahead = static_cast<int>(std::max<int64_t>(2, options.accum_freq));
  loader.loader.augment = options.use_augment;
  data.training = make(open_data(options.train_data, "train", *logger), "train");
  if (options.val_data.empty()) return data;
  loader.loader.workers = static_cast<int>(std::max<int64_t>(1, options.valid_num_workers));
  loader.loader.batch_size = options.valid_batch_size;
  loader.loader.batches_ahead = 2;
  loader.loader.augment = false;
  loader.shuffle_anew = false;
  const auto valid = open_data(options.val_data, "val", *logger);
  data.validator.emplace(make(valid, "val"), pair_ids(*valid), logger);
  return data;
}

train::TrainerOptions trainer_options(const TrainingOptions& options, at::Device device,
                                      const std::shared_ptr<train::Communicator>& ranks, int64_t updates_per_epoch) {
  train::TrainerOptions trainer;
  trainer.folder = options.folder();
  trainer.resume = options.resume;
  if (trainer.resume.empty() && std::filesystem::exists(options.checkpoints() / "epoch_latest.pt")) {
    trainer.resume = options.checkpoints() / "epoch_latest.pt";
  }
  trainer.device = device;
  if (options.precision == "amp_bf16") trainer.precision = train::Precision::kBf16;
  if (options.precision == "amp" && !device.is_cpu()) trainer.precision = train::Precision::kFp16;
  const int64_t steps = options.max_steps;
  trainer.epochs = steps > 0 ? (steps + updates_per_epoch - 1) / updates_per_epoch : options.max_epochs;
  trainer.max_updates = steps;
  trainer.accumulation = options.accum_freq;
  trainer.clip_norm = options.grad_clip_norm;
  trainer.patience = 0;
  const bool validates = !options.val_data.empty();
  trainer.validate_every = validates ? std::max<int64_t>(0, options.valid_epoch_interval) : 0;
  trainer.validate_every_updates = validates ? std::max<int64_t>(0, options.valid_step_interval) : 0;
  trainer.save_every = std::max<int64_t>(0, options.save_step_frequency);
  trainer.seed = options.seed;
  trainer.tensorboard = options.writes_files();
  trainer.deterministic = options.deterministic;
  trainer.ranks = ranks;
  trainer.optimizer.kind = train::OptimizerOptions::Kind::kAdamW;
  trainer.optimizer.beta1 = options.beta1.value();
  trainer.optimizer.beta2 = options.beta2.value();
  trainer.optimizer.eps = options.eps.value();
  trainer.optimizer.weight_decay = options.wd;
  trainer.schedule.kind = options.skip_scheduler ? ScheduleKind::kConstant : ScheduleKind::kClipCosine;
  trainer.schedule.lr = options.lr.value();
  trainer.schedule.warmup = options.warmup;
  trainer.schedule.total_updates = steps > 0 ? steps : updates_per_epoch * options.max_epochs;
  return trainer;
}

}  // namespace strobe::clip
