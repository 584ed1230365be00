#include "clip/training/run.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <fstream>

#include "clip/training/build.h"
#include "clip/training/report.h"
#include "clip/training/run_files.h"
#include "train/precision.h"
#include "train/run_record.h"
#include "train/trainer.h"

namespace strobe::clip {
namespace {

/// UTC, as the original names a run's files by it.
std::string time_suffix() {
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%d-%H-%M-%S}", fmt::gmtime(now));
}

std::shared_ptr<train::Logger> open_log(const TrainingOptions& options, const std::string& suffix,
                                        const train::Communicator& ranks) {
  if (!ranks.is_root()) return std::make_shared<train::Logger>();
  const std::string line = "%Y-%m-%d,%H:%M:%S | %* | Rank 0 | %v";
  const train::Logger::Style style{.file = line, .console = line, .to_stderr = true, .debug = options.debug};
  const std::filesystem::path file =
      options.writes_files() ? options.folder() / fmt::format("out_{}.log", suffix) : std::filesystem::path();
  return std::make_shared<train::Logger>(file, train::Logger::Mode::kAppend, /*console=*/true, style);
}

void log_parameters(const TrainingOptions& options, const std::string& suffix, at::Device device, int processes,
                    train::Logger& logger) {
  auto all = parameters(options);
  all.emplace_back("device", device.str());
  all.emplace_back("world_size", std::to_string(processes));
  std::sort(all.begin(), all.end());
  std::ofstream file;
  if (options.writes_files()) file.open(options.folder() / fmt::format("params_{}.txt", suffix));
  logger.info("Params:");
  for (const auto& [name, value] : all) {
    logger.info(fmt::format("  {}: {}", name, value));
    file << name << ": " << value << '\n';
  }
}

void log_groups(ClipTask& task, double weight_decay, train::Logger& logger) {
  for (const train::ParameterGroup& group : task.parameter_groups(weight_decay)) {
    for (const auto& [name, parameter] : group.parameters) {
      if (parameter.requires_grad()) logger.debug(fmt::format("weight decay {}: {}", group.weight_decay, name));
    }
  }
}

void log_device(const TrainingOptions& options, const train::TrainerOptions& trainer, train::Logger& logger) {
  logger.info(
      fmt::format("Use {} for training, in {}", trainer.device.str(), train::precision_name(trainer.precision)));
  if (options.precision == "amp" && trainer.device.is_cpu()) {
    logger.info("Note: --precision amp computes in fp16 on a GPU; on the CPU it is fp32 (amp_bf16 is faster there).");
  }
}

TaskOptions task_options(const TrainingOptions& options) {
  TaskOptions task;
  task.loss.aggregate = !options.skip_aggregate;
  task.loss.gather_with_grad = options.gather_with_grad;
  task.loss.local_loss = options.local_loss;
  task.loss.accuracy = options.report_training_batch_acc;
  task.loss.kd_weight = options.kd_loss_weight;
  task.mask_ratio = options.mask_ratio;
  task.accumulation = options.accum_freq;
  return task;
}

}  // namespace

int run_training(TrainingOptions options, at::Device device, const std::shared_ptr<train::Communicator>& ranks) {
  resolve(options);
  const std::string suffix = time_suffix();
  const bool writes = options.writes_files() && ranks->is_root();
  const auto logger = open_log(options, suffix, *ranks);
  Data data = build_data(options, device, *ranks, logger);
  Clip model = build_model(options, device, ranks, *logger);
  ClipTask task({model, build_teacher(options, device, *logger), std::move(data.training), std::move(data.validator)},
                task_options(options), device, ranks);
  task.begin_epoch(1);
  const train::TrainerOptions trainer = trainer_options(options, device, ranks, task.updates_per_epoch());
  if (writes) {
    std::filesystem::create_directories(options.checkpoints());
    train::write_run_record(options.folder(), {options.command, options.configuration, trainer.resume, {}, device});
  }
  if (ranks->is_root()) log_parameters(options, suffix, device, ranks->size(), *logger);
  log_groups(task, options.wd, *logger);
  log_device(options, trainer, *logger);
  ClipFiles files(options, trainer, task, *logger);
  ClipReport report(options, trainer, task, *logger);
  return train::train(task, trainer, files, report).exit_status;
}

}  // namespace strobe::clip
