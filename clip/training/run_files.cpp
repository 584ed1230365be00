#include "clip/training/run_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "clip/checkpoint/load.h"
#include "clip/checkpoint/optimizer_state.h"
#include "clip/checkpoint/towers.h"
#include "train/checkpoint.h"
#include "train/device.h"
#include "train/distributed/tally.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;
using train::CheckpointError;
using train::Occasion;
using train::RunState;

constexpr const char* kLatest = "epoch_latest.pt";
constexpr const char* kTrainer = "trainer";       // among the extra keys of a file
constexpr const char* kBatchSize = "batch_size";  // there: of one process

/// A second name for `file` in place of `name`; false where the file system has no such thing.
bool link_as(const fs::path& file, const fs::path& name) {
  fs::path temporary = name;
  temporary += ".tmp";
  std::error_code failed;
  fs::remove(temporary, failed);
  fs::create_hard_link(file, temporary, failed);
  if (!failed) fs::rename(temporary, name, failed);
  return !failed;
}

}  // namespace

ClipFiles::ClipFiles(const TrainingOptions& options, const train::TrainerOptions& trainer, ClipTask& task,
                     train::Logger& logger)
    : options_(options), trainer_(trainer), task_(task), logger_(logger) {}

fs::path ClipFiles::last() const { return options_.checkpoints() / kLatest; }

int64_t ClipFiles::batches_per_update() const { return options_.accum_freq * trainer_.ranks->size(); }

RunState ClipFiles::resume(train::Updater& updater) {
  logger_.info(fmt::format("=> begin to load checkpoint '{}'", trainer_.resume.string()));
  const ClipCheckpoint checkpoint =
      options_.reset_optimizer ? read_clip_weights(trainer_.resume) : read_clip_checkpoint(trainer_.resume);
  check_towers(checkpoint.state, vision_config(options_.vision_model), text_config(options_.text_model));
  load_clip_weights(task_.model(), checkpoint.state);
  const train::Value* saved = checkpoint.extra.find(kTrainer);
  if (!options_.reset_optimizer) {
    if (!checkpoint.optimizer) {
      throw CheckpointError("checkpoint " + trainer_.resume.string() +
                            ": holds no optimizer state; --reset-optimizer begins with a new one");
    }
    updater.load_state(match_optimizer(*checkpoint.optimizer, updater.optimizer_state()),
                       saved != nullptr ? saved->as_dict().at("scaler") : train::Value());
    logger_.info("=> optimizer state is restored from the checkpoint");
  }
  RunState state;
  if (saved != nullptr && !options_.reset_data_offset) {
    state = rescaled(train::restore_trainer(saved->as_dict(), trainer_), saved->as_dict());
  } else {
    state = options_.reset_data_offset ? RunState{} : position(checkpoint);
    state.processes = trainer_.ranks->size();
    const uint64_t seed = trainer_.seed + static_cast<uint64_t>(state.update);
    train::seed_generators(trainer_.device, train::seed_of_rank(seed, trainer_.ranks->rank()));
  }
  logger_.info(fmt::format("=> loaded checkpoint '{}' (epoch {} @ {} steps)", trainer_.resume.string(),
                           checkpoint.epoch, state.update));
  return state;
}

/// Where the original's file stands: after whole epochs, or within the last that it names.
RunState ClipFiles::position(const ClipCheckpoint& checkpoint) const {
  const int64_t updates = task_.updates_per_epoch();
  const int64_t within = checkpoint.step - (checkpoint.epoch - 1) * updates;
  RunState state;
  const bool is_within = checkpoint.epoch > 0 && within > 0 && within < updates;
  state.epoch = is_within ? checkpoint.epoch : checkpoint.epoch + 1;
  state.batch = is_within ? within * batches_per_update() : 0;
  state.update = is_within ? checkpoint.step : checkpoint.epoch * updates;
  state.validated_update = state.update;
  return state;
}

/// The same place in the data where the batches of an update are others now; a started one is begun anew.
RunState ClipFiles::rescaled(RunState state, const train::Dict& trainer) const {
  const int64_t before = trainer.at(kBatchSize).as_int();
  if (before == options_.batch_size && state.batch % batches_per_update() == 0) return state;
  const int64_t samples = state.batch * before;
  const int64_t updates = samples / (options_.batch_size * batches_per_update());
  state.batch = std::min(updates, task_.updates_per_epoch()) * batches_per_update();
  return state;
}

bool ClipFiles::is_epoch_due(const RunState& state, int64_t epoch) const {
  const bool is_last = epoch >= trainer_.epochs || (trainer_.max_updates > 0 && state.update >= trainer_.max_updates);
  return is_last || (options_.save_epoch_frequency > 0 && epoch % options_.save_epoch_frequency == 0);
}

void ClipFiles::save(RunState& state, Occasion occasion, const train::Updater& updater) {
  if (!options_.writes_files()) return;
  const int64_t epoch = state.batch == 0 ? state.epoch - 1 : state.epoch;
  const bool is_step_due = train::is_save_due(trainer_, state) && saved_step_ != state.update;
  std::vector<std::string> names;
  if (is_step_due) names.push_back(fmt::format("epoch_{}_{}.pt", epoch, state.update));
  switch (occasion) {
    case Occasion::kBest:
    case Occasion::kBeforeValidation:
      return;  // the original writes nothing then, and such a file may take minutes
    case Occasion::kAfterValidation:
    case Occasion::kUpdates:
      if (!is_step_due) return;
      break;
    case Occasion::kEpoch:
      if (is_epoch_due(state, epoch)) names.push_back(fmt::format("epoch{}.pt", epoch));
      break;
    case Occasion::kSignal:
      break;
  }
  if (is_step_due) saved_step_ = state.update;
  write(state, epoch, names, updater);
}

/// One content under all names and as epoch_latest.pt.
void ClipFiles::write(const RunState& state, int64_t epoch, const std::vector<std::string>& names,
                      const train::Updater& updater) const {
  using Clock = std::chrono::steady_clock;
  train::Dict trainer = train::trainer_dict(state, trainer_, updater);
  if (!trainer_.ranks->is_root()) return;
  trainer[kBatchSize] = options_.batch_size;
  ClipCheckpoint content;
  content.epoch = epoch;
  content.step = state.update;
  content.name = options_.name;
  content.state = train::module_state(task_.model());
  content.optimizer = updater.optimizer_state();
  content.extra[kTrainer] = std::move(trainer);
  Clock::time_point begin = Clock::now();
  const auto log = [&](const fs::path& file) {
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    logger_.info(fmt::format("Saved checkpoint {} (epoch {} @ {} steps) (writing took {} seconds)", file.string(),
                             epoch, state.update, seconds));
    begin = Clock::now();
  };
  std::vector<fs::path> files;
  for (const std::string& name : names) files.push_back(options_.checkpoints() / name);
  files.push_back(last());
  for (const fs::path& file : files) {
    if (file == files.front() || !link_as(files.front(), file)) write_clip_checkpoint(file, content);
    log(file);
  }
}

}  // namespace strobe::clip
