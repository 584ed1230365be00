#include "train/run_files.h"

#include <iterator>
#include <utility>
#include <vector>

#include "train/device.h"
#include "train/distributed/tally.h"

namespace strobe::train {
namespace {

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

bool is_save_due(const TrainerOptions& options, const RunState& state) {
  return options.save_every > 0 && state.update > 0 && state.update % options.save_every == 0;
}

Dict trainer_dict(const RunState& state, const TrainerOptions& options, const Updater& updater) {
  List random = random_states(options.device, *options.ranks);
  Dict trainer = to_dict(state);
  trainer["scaler"] = updater.scaler_state();
  trainer["random"] = std::move(random.front());
  trainer["random_of_ranks"] = List(std::next(random.begin()), random.end());
  return trainer;
}

RunState restore_trainer(const Dict& trainer, const TrainerOptions& options) {
  const RunState state = run_state_from(trainer);
  const Communicator& ranks = *options.ranks;
  if (state.processes != ranks.size()) {
    seed_generators(options.device, seed_of_rank(options.seed + static_cast<uint64_t>(state.update), ranks.rank()));
    return state;
  }
  const auto rank = static_cast<std::size_t>(ranks.rank());
  const Value& random = ranks.is_root() ? trainer.at("random") : trainer.at("random_of_ranks").as_list().at(rank - 1);
  set_random_state(options.device, random.as_dict());
  return state;
}

}  // namespace strobe::train
