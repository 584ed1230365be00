#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "cli/commands.h"
#include "cli/config_file.h"
#include "cli/launcher.h"
#include "cli/nmt_options.h"
#include "cli/options.h"
#include "clip/model/config.h"
#include "clip/training/run.h"

namespace strobe::cli {
namespace {

struct Arguments {
  clip::TrainingOptions training;
  RunOptions run;
  ProcessOptions processes;
  int local_rank = 0;  // of a launcher that gives it as an option too; the environment counts
};

/// Options of one kind, in one group of the help.
class Group {
 public:
  Group(CLI::App& command, std::string name) : command_(command), name_(std::move(name)) {}

  /// Of an option that is given twice the last counts, as in the original.
  template <typename T>
  CLI::Option* option(const char* names, T& value, const char* help) {
    return command_.add_option(names, value, help)->group(name_)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  template <typename T>
  CLI::Option* value(const char* names, T& value, const char* help) {
    return option(names, value, help)->capture_default_str();
  }
  void flag(const char* names, bool& value, const char* help) { command_.add_flag(names, value, help)->group(name_); }

 private:
  CLI::App& command_;
  std::string name_;
};

void add_data(CLI::App& command, clip::TrainingOptions& o) {
  Group group(command, "Data");
  group.option("--train-data", o.train_data, "the LMDB folder of the training pairs")->required();
  group.option("--val-data", o.val_data, "that of the validation; none: no validation");
  group.option("--vocab", o.vocabulary, "vocab.txt; else that of the installed cn_clip");
  group.value("--num-workers", o.num_workers, "threads that read and decode for the training");
  group.value("--valid-num-workers", o.valid_num_workers, "and for the validation");
  group.value("--batch-size", o.batch_size, "pairs a batch of each process");
  group.value("--valid-batch-size", o.valid_batch_size, "and in the validation");
  group.value("--context-length", o.context_length, "tokens of a text, [CLS] and [SEP] included");
  group.flag("--use-augment", o.use_augment, "random crops, flips and AutoAugment");
}

void add_model(CLI::App& command, clip::TrainingOptions& o) {
  Group group(command, "Model");
  group.value("--vision-model", o.vision_model, "")->check(one_of(clip::vision_names()));
  group.value("--text-model", o.text_model, "")->check(one_of(clip::text_names()));
  group.option("--clip-weight-path", o.clip_weight_path, "OpenAI CLIP's weights to begin the vision tower with");
  group.option("--bert-weight-path", o.bert_weight_path, "BERT's weights to begin the text tower with");
  group.flag("--use-flash-attention", o.use_flash_attention, "FlashAttention-2 in both towers");
  add_attn_type(command, o.attn_type)->group("Model");
  group.flag("--grad-checkpointing", o.grad_checkpointing, "compute blocks again in backward instead of keeping them");
  group.flag("--freeze-vision", o.freeze_vision, "leave the vision tower as it is");
  group.flag("--freeze-text", o.freeze_text, "leave the text tower as it is");
  group.flag("--use-bn-sync", o.use_bn_sync, "batch norms' statistics over all processes");
  group.value("--mask-ratio", o.mask_ratio, "of a ViT's patches, left out at random in training");
  group.value("--precision", o.precision, "amp: fp16 with fp32 weights (fp32 on the CPU); amp_bf16: bf16 with them")
      ->check(one_of({"amp", "amp_bf16", "fp16", "fp32"}));
}

void add_optimization(CLI::App& command, clip::TrainingOptions& o) {
  Group group(command, "Optimisation");
  group.option("--lr", o.lr, "the highest learning rate; else by the vision model: 5e-4, ViT-L 4e-4");
  group.option("--beta1", o.beta1, "of AdamW; else 0.9");
  group.option("--beta2", o.beta2, "of AdamW; else 0.98, RN50 0.999");
  group.option("--eps", o.eps, "of AdamW; else 1e-6, RN50 1e-8");
  group.value("--wd", o.wd, "weight decay");
  group.value("--warmup", o.warmup, "steps of rising learning rate");
  group.flag("--skip-scheduler", o.skip_scheduler, "no decay of the learning rate after the warm-up");
  group.value("--grad-clip-norm", o.grad_clip_norm, "largest norm of the gradients; 0: no limit");
  group.value("--accum-freq", o.accum_freq, "batches of each process that make one step, contrasted with one another");
}

void add_loss(CLI::App& command, clip::TrainingOptions& o) {
  Group group(command, "Loss");
  group.flag("--gather-with-grad", o.gather_with_grad, "the whole gradient for the features of all processes");
  group.flag("--local-loss", o.local_loss, "each process only its own rows against all features");
  group.flag("--skip-aggregate", o.skip_aggregate, "contrast within each process's batch alone");
  group.flag("--distillation", o.distillation, "learn from a teacher's image features too");
  group.option("--teacher-model-name", o.teacher_model_name, "the teacher: the file of a CLIP");
  group.value("--kd_loss_weight,--kd-loss-weight", o.kd_loss_weight, "of the distillation");
}

void add_course(CLI::App& command, clip::TrainingOptions& o) {
  Group group(command, "Course");
  group.value("--max-epochs", o.max_epochs, "");
  group.option("--max-steps", o.max_steps, "end after so many steps, whatever --max-epochs says");
  group.option("--valid-step-interval", o.valid_step_interval, "validate after so many steps; none, 0 or below: not");
  group.value("--valid-epoch-interval", o.valid_epoch_interval, "validate after so many epochs; 0 or below: not");
  group.value("--seed", o.seed, "of weights, order, augmentation and dropout");
  group.flag("--deterministic", o.deterministic, "the same bits from the same seed on a GPU too");
}

void add_files(CLI::App& command, clip::TrainingOptions& o) {
  Group group(command, "Files and log");
  group.value("--logs", o.logs, "folder of all runs; None: nothing is written");
  group.value("--name", o.name, "of this run, and of its folder");
  group.value("--log-interval", o.log_interval, "steps between the lines of the log");
  group.flag("--report-training-batch-acc", o.report_training_batch_acc, "the accuracy within batches in those lines");
  group.value("--save-epoch-frequency", o.save_epoch_frequency, "epochs between checkpoints that are kept");
  group.value("--save-step-frequency", o.save_step_frequency, "steps between checkpoints that are kept; -1: none");
  group.option("--resume", o.resume, "a checkpoint to go on from; else the run's epoch_latest.pt where there is one");
  group.flag("--reset-optimizer", o.reset_optimizer, "take only the weights from it, not the optimizer");
  group.flag("--reset-data-offset", o.reset_data_offset, "begin with the first epoch and step");
  group.flag("--debug", o.debug, "log more");
}

/// The exit status.
int run(const Arguments& arguments) {
  if (const std::optional<int> status = arguments.processes.launch()) return *status;
  const train::World world = train::world_from_environment();
  const at::Device device = arguments.run.start(world);
  return train::run_in_world(world, device, [&](const std::shared_ptr<train::Communicator>& ranks) {
    return clip::run_training(arguments.training, device, ranks);
  });
}

}  // namespace

void add_clip_train(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("train", "Fine-tune a Chinese-CLIP on image-text pairs");
  const auto arguments = std::make_shared<Arguments>();
  add_data(*command, arguments->training);
  add_model(*command, arguments->training);
  add_optimization(*command, arguments->training);
  add_loss(*command, arguments->training);
  add_course(*command, arguments->training);
  add_files(*command, arguments->training);
  arguments->run.add_device(*command);
  arguments->processes.add_to(*command);
  command->add_option("--local-rank,--local_rank", arguments->local_rank, "")->group("");
  const auto config = std::make_shared<ConfigFile>(*command, std::vector<Preset>{});
  command->callback([command, arguments, config] {
    config->apply();
    if (config->wants_dump()) {
      std::fputs(config->dump().c_str(), stdout);
    } else {
      arguments->training.command = command_line(*command);
      arguments->training.configuration = config->dump();
      if (const int status = run(*arguments); status != 0) throw CLI::RuntimeError(status);
    }
  });
}

}  // namespace strobe::cli
