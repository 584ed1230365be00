#include "train/run_checkpoints.h"

#include <fmt/format.h>
#include <torch/nn/module.h>

#include <utility>

#include "train/checkpoint.h"

namespace strobe::train {
namespace {

namespace fs = std::filesystem;

/// The errors of what looks into a checkpoint do not know its file.
template <typename Read>
auto name_file(const fs::path& file, const Read& read) {
  try {
    return read();
  } catch (const CheckpointError& error) {
    throw CheckpointError("checkpoint " + file.string() + ": " + error.what());
  }
}

}  // namespace

void require_resumable(const fs::path& file) {
  const Dict saved = load_checkpoint(file);
  name_file(file, [&] {
    saved.at("model").as_dict();
    saved.at("optimizer").as_dict();
    return run_state_from(saved.at("trainer").as_dict());
  });
}

RunState RunCheckpoints::resume(Updater& updater) {
  const Dict saved = load_checkpoint(options_.resume);
  RunState state = name_file(options_.resume, [&] {
    const Dict& trainer = saved.at("trainer").as_dict();
    load_module_state(task_.model(), saved.at("model").as_dict());
    updater.load_state(saved.at("optimizer").as_dict(), trainer.at("scaler"));
    return restore_trainer(trainer, options_);
  });
  std::error_code ignored;
  const bool in_place = fs::equivalent(fs::absolute(options_.resume).parent_path(), options_.folder, ignored);
  if (!in_place) state.kept.clear();  // in another folder those names are another run's files
  remove_oldest(state);               // a run that was killed may not have come to it
  return state;
}

void RunCheckpoints::save(RunState& state, Occasion occasion, const Updater& updater) {
  if (occasion == Occasion::kBest) return write(options_.folder / "model.pth", state, updater);
  const bool keeps = options_.keep_last > 0 && occasion != Occasion::kBeforeValidation && occasion != Occasion::kSignal;
  if (keeps) {
    if (state.kept.empty() || state.kept.back() != state.update) state.kept.push_back(state.update);
    // Before last.pt: a run killed in between goes on from the older one and writes this again.
    write(numbered(state.update), state, updater);
  }
  write(last(), state, updater);
  if (keeps) remove_oldest(state);
}

fs::path RunCheckpoints::last() const { return options_.folder / "last.pt"; }

void RunCheckpoints::write(const fs::path& file, const RunState& state, const Updater& updater) const {
  Dict trainer = trainer_dict(state, options_, updater);
  if (!options_.ranks->is_root()) return;
  Dict content = task_.describe().as_dict();
  for (const char* reserved : {"model", "optimizer", "trainer"}) {
    if (content.contains(reserved)) throw Error(fmt::format("train: Task::describe() must not hold \"{}\"", reserved));
  }
  content["model"] = module_state(task_.model());
  content["optimizer"] = updater.optimizer_state();
  content["trainer"] = std::move(trainer);
  save_checkpoint(file, content);
}

fs::path RunCheckpoints::numbered(int64_t update) const {
  return options_.folder / fmt::format("checkpoint-{:06}.pt", update);
}

void RunCheckpoints::remove_oldest(RunState& state) const {
  if (options_.keep_last == 0) return;
  const bool removes = options_.ranks->is_root();
  while (static_cast<int64_t>(state.kept.size()) > options_.keep_last) {
    std::error_code ignored;  // it may have been moved away
    if (removes) fs::remove(numbered(state.kept.front()), ignored);
    state.kept.erase(state.kept.begin());
  }
}

}  // namespace strobe::train
