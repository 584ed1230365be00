#include "train/run_state.h"

namespace strobe::train {
namespace {

Dict to_dict(const EpochTotals& totals) {
  Dict dict;
  dict["loss_sum"] = totals.loss_sum;
  dict["loss_count"] = totals.loss_count;
  dict["target_tokens"] = totals.target_tokens;
  dict["source_tokens"] = totals.source_tokens;
  dict["slots"] = totals.slots;
  dict["padding"] = totals.padding;
  dict["updates"] = totals.updates;
  dict["not_finite"] = totals.not_finite;
  dict["out_of_memory"] = totals.out_of_memory;
  dict["seconds"] = totals.seconds;
  return dict;
}

EpochTotals totals_from(const Dict& dict) {
  EpochTotals totals;
  totals.loss_sum = dict.at("loss_sum").as_double();
  totals.loss_count = dict.at("loss_count").as_double();
  totals.target_tokens = dict.at("target_tokens").as_int();
  totals.source_tokens = dict.at("source_tokens").as_int();
  totals.slots = dict.at("slots").as_int();
  totals.padding = dict.at("padding").as_int();
  totals.updates = dict.at("updates").as_int();
  totals.not_finite = dict.at("not_finite").as_int();
  totals.out_of_memory = dict.at("out_of_memory").as_int();
  totals.seconds = dict.at("seconds").as_double();
  return totals;
}

List to_list(const std::vector<int64_t>& numbers) { return {numbers.begin(), numbers.end()}; }

std::vector<int64_t> numbers_from(const List& list) {
  std::vector<int64_t> numbers;
  for (const Value& value : list) numbers.push_back(value.as_int());
  return numbers;
}

}  // namespace

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

double EpochTotals::loss() const { return ratio(loss_sum, loss_count); }
double EpochTotals::target_tokens_per_second() const { return ratio(static_cast<double>(target_tokens), seconds); }
double EpochTotals::padding_share() const { return ratio(static_cast<double>(padding), static_cast<double>(slots)); }

Dict to_dict(const RunState& state) {
  Dict dict;
  dict["epoch"] = state.epoch;
  dict["batch"] = state.batch;
  dict["update"] = state.update;
  dict["best_score"] = state.best_score ? Value(*state.best_score) : Value();
  dict["best_epoch"] = state.best_epoch;
  dict["best_update"] = state.best_update;
  dict["bad_validations"] = state.bad_validations;
  dict["validated_update"] = state.validated_update;
  dict["processes"] = state.processes;
  dict["kept"] = to_list(state.kept);
  dict["totals"] = to_dict(state.totals);
  return dict;
}

RunState run_state_from(const Dict& dict) {
  RunState state;
  state.epoch = dict.at("epoch").as_int();
  state.batch = dict.at("batch").as_int();
  state.update = dict.at("update").as_int();
  if (const Value& best = dict.at("best_score"); !best.is_none()) state.best_score = best.as_double();
  state.best_epoch = dict.at("best_epoch").as_int();
  state.best_update = dict.at("best_update").as_int();
  state.bad_validations = dict.at("bad_validations").as_int();
  state.validated_update = dict.at("validated_update").as_int();
  state.processes = dict.at("processes").as_int();
  state.kept = numbers_from(dict.at("kept").as_list());
  state.totals = totals_from(dict.at("totals").as_dict());
  if (state.epoch < 1 || state.batch < 0 || state.update < 0) throw CheckpointError("trainer state: out of range");
  return state;
}

}  // namespace strobe::train
