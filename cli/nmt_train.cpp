#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "cli/commands.h"
#include "cli/config_file.h"
#include "cli/launcher.h"
#include "cli/nmt_model_options.h"
#include "cli/nmt_options.h"
#include "cli/nmt_presets.h"
#include "cli/options.h"
#include "nmt/experiment.h"

namespace strobe::cli {
namespace {

using OptimizerKind = train::OptimizerOptions::Kind;
using ScheduleKind = train::ScheduleOptions::Kind;

const std::map<std::string, OptimizerKind> kOptimizers = {{"adam", OptimizerKind::kAdam},
                                                          {"adamw", OptimizerKind::kAdamW}};
const std::map<std::string, ScheduleKind> kSchedules = {{"noam", ScheduleKind::kNoam},
                                                        {"inverse-sqrt", ScheduleKind::kInverseSqrt},
                                                        {"cosine", ScheduleKind::kCosine},
                                                        {"constant", ScheduleKind::kConstant}};

template <typename Kind>
std::vector<std::string> names_of(const std::map<std::string, Kind>& kinds) {
  std::vector<std::string> names;
  for (const auto& [name, kind] : kinds) names.push_back(name);
  return names;
}

/// What the command line says, where it is not said in ExperimentOptions' own terms.
struct Arguments {
  nmt::ExperimentOptions experiment;
  ModelOptions model;
  RunOptions run;
  ProcessOptions processes;
  std::string optimizer = "adam";
  std::string schedule = "noam";
  std::string bleu_tokenize = "auto";
  std::optional<int64_t> warmup;
  int64_t valid_beam = 1;
};

void add_paths(CLI::App& command, Arguments& a) {
  command.add_option("--data", a.experiment.data, "the folder that `nmt prepare` wrote")->capture_default_str();
  command.add_option("--out", a.experiment.trainer.folder, "where train.log, model.pth, last.pt and output.txt go")
      ->capture_default_str();
  CLI::Option* resume =
      command.add_option("--resume", a.experiment.trainer.resume, "a last.pt to go on from, bit for bit");
  command
      .add_option(
          "--init", a.experiment.init,
          "a checkpoint whose weights to begin with, on data prepared with its vocabularies (--vocab-from); the "
          "optimiser starts anew")
      ->excludes(resume);
}

void add_batches(CLI::App& command, Arguments& a) {
  const auto count = [&](const char* name, int64_t& value, const char* help) {
    command.add_option(name, value, help)->check(CLI::NonNegativeNumber)->capture_default_str()->group("Batches");
  };
  count("--batch-size", a.experiment.task.batch.sentences, "sentences a batch; 0: by --max-tokens alone");
  count("--max-tokens", a.experiment.task.batch.max_tokens,
        "tokens a batch on either side, padding included; 0: no limit");
  count("--max-train-length", a.experiment.max_train_length,
        "leave out training pairs with more pieces on a side; 0: none");
  command.add_option("--accumulate", a.experiment.trainer.accumulation, "batches an update")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Batches");
}

void add_optimization(CLI::App& command, Arguments& a) {
  train::TrainerOptions& trainer = a.experiment.trainer;
  const auto real = [&](const char* name, double& value, const char* help) {
    command.add_option(name, value, help)->check(CLI::NonNegativeNumber)->capture_default_str()->group("Optimisation");
  };
  command.add_option("--optimizer", a.optimizer, "")
      ->check(one_of(names_of(kOptimizers)))
      ->capture_default_str()
      ->group("Optimisation");
  command.add_option("--schedule", a.schedule, "of the learning rate")
      ->check(one_of(names_of(kSchedules)))
      ->capture_default_str()
      ->group("Optimisation");
  real("--lr", trainer.schedule.lr, "the highest learning rate; not used by noam");
  real("--lr-factor", trainer.schedule.factor, "of noam");
  real("--min-lr", trainer.schedule.min_lr, "where cosine ends");
  command
      .add_option("--warmup", a.warmup,
                  "updates of rising learning rate; 10000 for noam and inverse-sqrt, else none, unless given")
      ->check(CLI::NonNegativeNumber)
      ->group("Optimisation");
  real("--weight-decay", trainer.optimizer.weight_decay, "of matrices");
  real("--label-smoothing", a.experiment.task.label_smoothing, "share of the target spread over the vocabulary");
  real("--clip-norm", trainer.clip_norm, "largest norm of the gradients; 0: no limit");
}

void add_course(CLI::App& command, Arguments& a) {
  train::TrainerOptions& trainer = a.experiment.trainer;
  const auto count = [&](const char* name, int64_t& value, const char* help) {
    command.add_option(name, value, help)->check(CLI::NonNegativeNumber)->capture_default_str()->group("Course");
  };
  command.add_option("--epochs", trainer.epochs, "")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Course");
  count("--max-updates", trainer.max_updates, "end after so many; 0: no limit");
  count("--patience", trainer.patience, "validations without a better BLEU before the end; 0: never");
  count("--validate-every", trainer.validate_every, "epochs; 0: not by epochs");
  count("--validate-every-updates", trainer.validate_every_updates, "updates; 0: not by updates");
  count("--save-every", trainer.save_every, "updates between checkpoints besides those after epochs and validations");
  count("--keep-last", trainer.keep_last, "keep so many of the last checkpoints, as checkpoint-<update>.pt");
  command.add_option("--seed", trainer.seed, "of weights, order and dropout")->capture_default_str()->group("Course");
  command.add_flag("--deterministic", trainer.deterministic, "the same bits from the same seed on a GPU too")
      ->group("Course");
  command
      .add_flag("--graphs", a.experiment.task.graphs,
                "replay the steps of small batches as CUDA graphs, so that the host launches once a step; one process")
      ->group("Course");
}

void add_evaluation(CLI::App& command, Arguments& a) {
  add_search_options(command, a.experiment.test.search);
  command.add_option("--valid-beam", a.valid_beam, "beam of the validation after each epoch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--bleu-tokenize", a.bleu_tokenize, "sacreBLEU's tokenizer; auto: zh for Chinese, else 13a")
      ->check(one_of({"auto", "zh", "13a", "char", "none"}))
      ->capture_default_str();
}

std::vector<Preset> presets() {
  return {{"fanmt", "FlashAttentionNMT's model and recipe, the defaults", kFanmtPreset},
          {"base", "Transformer base (Vaswani et al. 2017)", kBasePreset},
          {"tiny", "2+2 layers of 128, for two CPU cores", kTinyPreset}};
}

/// The exit status.
int run(const Arguments& arguments) {
  if (const std::optional<int> status = arguments.processes.launch()) return *status;
  const train::World world = train::world_from_environment();
  nmt::ExperimentOptions options = arguments.experiment;
  options.model = arguments.model.config();
  options.trainer.device = arguments.run.start(world);
  options.trainer.precision = arguments.run.precision_on(options.trainer.device);
  options.trainer.optimizer.kind = kOptimizers.at(arguments.optimizer);
  options.trainer.schedule.kind = kSchedules.at(arguments.schedule);
  const bool decays_by_warmup = arguments.schedule == "noam" || arguments.schedule == "inverse-sqrt";
  options.trainer.schedule.warmup = arguments.warmup.value_or(decays_by_warmup ? 10000 : 0);
  options.task.validation.search = options.test.search;
  options.task.validation.search.beam = arguments.valid_beam;
  if (arguments.bleu_tokenize != "auto") options.bleu_tokenizer = nmt::bleu_tokenizer(arguments.bleu_tokenize);
  return train::run_in_world(world, options.trainer.device, [&](const std::shared_ptr<train::Communicator>& ranks) {
    options.trainer.ranks = ranks;
    return nmt::run_experiment(options);
  });
}

}  // namespace

void add_nmt_train(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("train", "Train a translation model, then test the best one");
  const auto arguments = std::make_shared<Arguments>();
  add_paths(*command, *arguments);
  arguments->model.add_to(*command);
  add_batches(*command, *arguments);
  add_optimization(*command, *arguments);
  add_course(*command, *arguments);
  add_evaluation(*command, *arguments);
  arguments->run.add_to(*command);
  arguments->processes.add_to(*command);
  const auto config = std::make_shared<ConfigFile>(*command, presets());
  command->callback([command, arguments, config] {
    config->apply();
    if (config->wants_dump()) {
      std::fputs(config->dump().c_str(), stdout);
    } else {
      arguments->experiment.command = command_line(*command);
      arguments->experiment.configuration = config->dump();
      if (const int status = run(*arguments); status != 0) throw CLI::RuntimeError(status);
    }
  });
}

}  // namespace strobe::cli
