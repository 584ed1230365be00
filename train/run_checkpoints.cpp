#include "train/run_checkpoints.h"

#include <fmt/format.h>
#include <torch/nn/module.h>

#include <iterator>
#include <utility>

#include "train/checkpoint.h"
#include "train/device.h"
#include "train/distributed/tally.h"

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

/// Of all ranks in their order.
List random_states(at::Device device, Communicator& ranks) {
  const Dict own = random_state(device);
  std::vector<Dict> states(static_cast<std::size_t>(ranks.size()));
  for (const auto& [key, value] : own) {
    const at::Tensor all = ranks.all_gather(value.as_tensor());
    for (std::size_t rank = 0; rank < states.size(); ++rank)
      states[rank][key] = all[static_cast<int64_t>(rank)].clone();
  }
  return {states.begin(), states.end()};
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

bool is_save_due(const TrainerOptions& options, const RunState& state) {
  return options.save_every > 0 && state.update % options.save_every == 0;
}

RunState RunCheckpoints::resume() {
  const Dict saved = load_checkpoint(options_.resume);
  RunState state = name_file(options_.resume, [&] {
    const Dict& trainer = saved.at("trainer").as_dict();
    load_module_state(task_.model(), saved.at("model").as_dict());
    updater_.load_state(saved.at("optimizer").as_dict(), trainer.at("scaler"));
    const RunState saved_state = run_state_from(trainer);
    restore_random_state(trainer, saved_state.processes);
    return saved_state;
  });
  updater_.set_totals(state.totals);
  std::error_code ignored;
  const bool in_place = fs::equivalent(fs::absolute(options_.resume).parent_path(), options_.folder, ignored);
  if (!in_place) state.kept.clear();  // in another folder those names are another run's files
  remove_oldest(state);               // a run that was killed may not have come to it
  return state;
}

/// Each rank goes on from its own state. Another number of processes draws anew, and not what the run has drawn at its
/// start.
void RunCheckpoints::restore_random_state(const Dict& trainer, int64_t processes) const {
  const Communicator& ranks = *options_.ranks;
  if (processes != ranks.size()) {
    const auto update = static_cast<uint64_t>(trainer.at("update").as_int());
    return seed_generators(options_.device, seed_of_rank(options_.seed + update, ranks.rank()));
  }
  const auto rank = static_cast<std::size_t>(ranks.rank());
  const Value& state = ranks.is_root() ? trainer.at("random") : trainer.at("random_of_ranks").as_list().at(rank - 1);
  set_random_state(options_.device, state.as_dict());
}

void RunCheckpoints::save_best(const RunState& state) const { write(options_.folder / "model.pth", state); }

void RunCheckpoints::save_last(const RunState& state) const { write(last(), state); }

void RunCheckpoints::save(RunState& state) const {
  if (options_.keep_last > 0) {
    if (state.kept.empty() || state.kept.back() != state.update) state.kept.push_back(state.update);
    // Before last.pt: a run killed in between goes on from the older one and writes this again.
    write(numbered(state.update), state);
  }
  save_last(state);
  remove_oldest(state);
}

fs::path RunCheckpoints::last() const { return options_.folder / "last.pt"; }

void RunCheckpoints::write(const fs::path& file, const RunState& state) const {
  List random = random_states(options_.device, *options_.ranks);
  if (!options_.ranks->is_root()) return;
  Dict content = task_.describe().as_dict();
  for (const char* reserved : {"model", "optimizer", "trainer"}) {
    if (content.contains(reserved)) throw Error(fmt::format("train: Task::describe() must not hold \"{}\"", reserved));
  }
  Dict trainer = to_dict(state);
  trainer["scaler"] = updater_.scaler_state();
  trainer["random"] = std::move(random.front());
  trainer["random_of_ranks"] = List(std::next(random.begin()), random.end());
  content["model"] = module_state(task_.model());
  content["optimizer"] = updater_.optimizer_state();
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
