#include "nmt/experiment.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <ostream>
#include <utility>

#include "nmt/staged_files.h"
#include "nmt/text.h"
#include "train/checkpoint.h"
#include "train/device.h"
#include "train/logger.h"
#include "train/run_checkpoints.h"
#include "train/run_record.h"

namespace strobe::nmt {
namespace {

struct Data {
  Vocabularies vocabularies;
  Dataset train, dev, test;
};

/// The files that a run is made from: those of the data folder, and the checkpoint whose weights it begins with.
std::vector<std::filesystem::path> input_files(const ExperimentOptions& options) {
  std::vector<std::filesystem::path> files;
  for (const char* part : {"json", "tokenizer"}) {
    for (const auto& entry : std::filesystem::directory_iterator(options.data / part)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  if (!options.init.empty()) files.push_back(options.init);
  return files;
}

void log_skipped(train::Logger& logger, const char* part, const Dataset& data) {
  if (data.skipped.total() > 0) {
    logger.warning(
        fmt::format("{}: {} pairs skipped ({} without a tab, {} with an empty side, {} of invalid UTF-8); first: {}",
                    part, data.skipped.total(), data.skipped.no_tab, data.skipped.empty_side, data.skipped.invalid_utf8,
                    data.skipped.first));
  }
  if (data.left_out.total() > 0) logger.warning(fmt::format("{}: {}", part, data.left_out.text()));
}

/// All parts, the test set too, so that what is missing is known before hours of training.
Data load_data(const ExperimentOptions& options) {
  Data data;
  data.vocabularies = load_vocabularies(options.data);
  data.train =
      load_dataset(options.data, Part::kTrain, data.vocabularies, LengthLimits{.max = options.max_train_length});
  data.dev = load_dataset(options.data, Part::kDev, data.vocabularies);
  data.test = load_dataset(options.data, Part::kTest, data.vocabularies);
  return data;
}

/// The checkpoint that the run begins with or goes on from; empty: none.
const std::filesystem::path& beginning_file(const ExperimentOptions& options) {
  return options.init.empty() ? options.trainer.resume : options.init;
}

train::Dict load_beginning(const ExperimentOptions& options) {
  if (!options.init.empty() && !options.trainer.resume.empty()) {
    throw Error("nmt training: expected init or resume, found both");
  }
  const std::filesystem::path& file = beginning_file(options);
  return file.empty() ? train::Dict() : load_translation_checkpoint(file);
}

int64_t parameter_count(const torch::nn::Module& module) {
  int64_t count = 0;
  for (const at::Tensor& parameter : module.parameters()) count += parameter.numel();
  return count;
}

train::Logger open_log(const train::TrainerOptions& options) {
  return train::Logger(options.folder / "train.log",
                       options.resume.empty() ? train::Logger::Mode::kTruncate : train::Logger::Mode::kAppend);
}

void log_setting(train::Logger& logger, const ExperimentOptions& options, const Data& data, const Transformer& model) {
  logger.info(fmt::format("Device: {}, threads: {}, precision: {}, attention: {}", options.trainer.device.str(),
                          at::get_num_threads(), train::precision_name(options.trainer.precision),
                          options.model.attn_type));
  if (const int processes = options.trainer.ranks->size(); processes > 1) {
    logger.info(fmt::format("Processes: {}", processes));
  }
  logger.info(fmt::format("Parameters: {}, vocabularies: {} and {} pieces", parameter_count(*model),
                          data.vocabularies.source.size(), data.vocabularies.target.size()));
  logger.info(fmt::format("Pairs: {} train, {} dev, {} test", data.train.pairs.size(), data.dev.pairs.size(),
                          data.test.pairs.size()));
}

void test_best(const ExperimentOptions& options, const Dataset& data, train::Logger& logger) {
  TranslationModel best = load_translation_model(options.trainer.folder / "model.pth", options.trainer.device);
  const Evaluation evaluation = evaluate(best, data, options.test);
  write_output(options.trainer.folder / "output.txt", data, evaluation.hypotheses);
  logger.info(test_line(evaluation));
  logger.info(fmt::format("{} {}", evaluation.bleu.text(), evaluation.bleu.signature));
}

bool holds_chinese(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    if (point.value >= 0x4E00 && point.value <= 0x9FFF) return true;
    i += point.bytes;
  }
  return false;
}

}  // namespace

BleuTokenizer guess_tokenizer(const Dataset& data) {
  const auto chinese = std::count_if(data.texts.begin(), data.texts.end(),
                                     [](const SentencePair& pair) { return holds_chinese(pair.target); });
  return 2 * static_cast<std::size_t>(chinese) > data.texts.size() ? BleuTokenizer::kZh : BleuTokenizer::k13a;
}

void write_output(const std::filesystem::path& file, const Dataset& data, const std::vector<std::string>& hypotheses) {
  StagedFiles files(file.has_parent_path() ? file.parent_path() : ".");
  files.write(file.filename(), [&](std::ostream& out) {
    for (std::size_t i = 0; i < hypotheses.size(); ++i) {
      out << "idx:" << i << data.texts[i].target << "|||" << hypotheses[i] << '\n';
    }
  });
  files.commit();
}

std::string test_line(const Evaluation& evaluation) {
  return fmt::format("Test loss: {:.6f},  Bleu Score: {:.4f}", evaluation.loss, evaluation.bleu.score);
}

int run_experiment(ExperimentOptions options) {
  validate(options.model);
  options.trainer.schedule.d_model = options.model.d_model;
  validate(options.trainer);
  validate(options.task.validation.search);
  validate(options.test.search);
  if (options.task.graphs && options.trainer.ranks->size() > 1) {
    throw Error("nmt training: graphs: expected one process, found " + std::to_string(options.trainer.ranks->size()));
  }
  options.task.seed = options.trainer.seed;
  options.task.validation.precision = options.test.precision = options.trainer.precision;

  if (!options.trainer.resume.empty()) train::require_resumable(options.trainer.resume);
  train::Dict beginning = load_beginning(options);
  Data data = load_data(options);  // before anything of an earlier run is overwritten
  require_joint_if_tied(options.model, data.vocabularies);
  if (beginning.size() > 0) {
    require_same_model(beginning, beginning_file(options), options.model, data.vocabularies, "this run");
  }
  const bool is_root = options.trainer.ranks->is_root();
  if (is_root) {
    train::write_run_record(options.trainer.folder, {options.command, options.configuration, options.trainer.resume,
                                                     input_files(options), options.trainer.device});
  }
  train::Logger logger = is_root ? open_log(options.trainer) : train::Logger();
  log_skipped(logger, "train", data.train);
  log_skipped(logger, "dev", data.dev);
  log_skipped(logger, "test", data.test);
  logger.info("-------- Dataset Build! --------");
  options.model.source_vocabulary = data.vocabularies.source.size();
  options.model.target_vocabulary = data.vocabularies.target.size();
  train::seed_generators(options.trainer.device, options.trainer.seed);
  Transformer model(options.model);
  if (!options.init.empty()) {
    train::load_module_state(*model, beginning.at(std::string("model")).as_dict());
    logger.info(fmt::format("Weights from {}", options.init.string()));
  }
  beginning = {};
  model->to(options.trainer.device);
  log_setting(logger, options, data, model);
  const BleuTokenizer tokenizer = options.bleu_tokenizer.value_or(guess_tokenizer(data.dev));
  TrainingTask task({model, data.vocabularies, tokenizer}, std::move(data.train), std::move(data.dev), options.task);
  logger.info("-------- Get Dataloader! --------");
  const train::TrainResult result = train::train(task, options.trainer, logger);
  if (result.exit_status == 0 && is_root) test_best(options, data.test, logger);
  return result.exit_status;
}

}  // namespace strobe::nmt
