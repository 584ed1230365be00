#include "clip/checkpoint/optimizer_state.h"

#include <ATen/ops/scalar_tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "clip/checkpoint/parameter_order.h"

namespace strobe::clip {
namespace {

using train::CheckpointError;
using train::Dict;
using train::List;
using train::Value;

[[noreturn]] void fail(const std::string& what) { throw CheckpointError("optimizer state: " + what); }

/// The parameters of one of the file's groups, by number and by name.
struct FileGroup {
  std::vector<int64_t> numbers;
  std::vector<FileParameter> parameters;
};

std::string bare(const std::string& name) { return name.starts_with("module.") ? name.substr(7) : name; }

std::vector<int64_t> numbers_of(const Dict& group) {
  std::vector<int64_t> numbers;
  for (const Value& number : group.at("params").as_list()) numbers.push_back(number.as_int());
  return numbers;
}

FileGroup named_group(const Dict& group) {
  FileGroup named{numbers_of(group), {}};
  for (const Value& name : group.at("param_names").as_list()) named.parameters.push_back({bare(name.as_string())});
  if (named.numbers.size() != named.parameters.size()) {
    fail(fmt::format("expected as many names as parameters, found {} and {}", named.parameters.size(),
                     named.numbers.size()));
  }
  return named;
}

/// Whether exp_avg can be that of the parameter: as its weights lie one upon the other. A pooler has no weights here.
bool fits(const at::Tensor& moment, const FileParameter& parameter, const Dict& state) {
  int64_t rows = 0;
  for (const std::string& name : parameter) {
    const Value* value = state.find(name);
    if (value == nullptr) return true;
    const at::Tensor& weight = value->as_tensor();
    if (parameter.size() == 1) return moment.sizes() == weight.sizes();
    if (weight.dim() != moment.dim() || weight.sizes().slice(1) != moment.sizes().slice(1)) return false;
    rows += weight.size(0);
  }
  return moment.size(0) == rows;
}

bool fits(const FileGroup& group, const Dict& slots, const Dict& state) {
  for (std::size_t i = 0; i < group.numbers.size(); ++i) {
    const Value* slot = slots.find(group.numbers[i]);
    if (slot != nullptr && !fits(slot->as_dict().at("exp_avg").as_tensor(), group.parameters[i], state)) return false;
  }
  return true;
}

/// The forms that the original's model can have had when it wrote the file.
std::vector<std::vector<FileParameter>> possible_orders(const Dict& state) {
  std::vector<std::vector<FileParameter>> orders;
  for (const AttentionForm form : {AttentionForm::kPlain, AttentionForm::kFlash}) {
    std::vector<FileParameter> whole = file_parameters(state, form);
    std::vector<FileParameter> without_vision = whole;
    std::erase_if(without_vision, [](const FileParameter& names) { return names.front().starts_with("visual."); });
    for (std::vector<FileParameter> order : {std::move(whole), std::move(without_vision)}) {
      orders.push_back(order);
      order.push_back({"bert.pooler.dense.weight"});
      order.push_back({"bert.pooler.dense.bias"});
      orders.push_back(std::move(order));
    }
  }
  return orders;
}

/// The original's two groups under the names of `order`, if the numbers and the shapes agree.
std::optional<std::vector<FileGroup>> try_order(const std::vector<FileParameter>& order, const List& groups,
                                                const Dict& slots, const Dict& state) {
  std::vector<FileGroup> named(2);
  for (const FileParameter& parameter : order) {
    named[has_weight_decay(parameter.front()) ? 1 : 0].parameters.push_back(parameter);
  }
  for (std::size_t g = 0; g < named.size(); ++g) {
    named[g].numbers = numbers_of(groups[g].as_dict());
    if (named[g].numbers.size() != named[g].parameters.size() || !fits(named[g], slots, state)) return std::nullopt;
  }
  return named;
}

std::vector<FileGroup> name_groups(const List& groups, const Dict& slots, const Dict& state) {
  const auto has_names = [](const Value& group) { return group.as_dict().contains("param_names"); };
  if (std::all_of(groups.begin(), groups.end(), has_names)) {
    std::vector<FileGroup> named;
    for (const Value& group : groups) {
      named.push_back(named_group(group.as_dict()));
      if (!fits(named.back(), slots, state)) fail("expected moments of the parameters' shapes, found others");
    }
    return named;
  }
  if (groups.size() != 2) fail(fmt::format("expected 2 groups of parameters, found {}", groups.size()));
  for (const auto& order : possible_orders(state)) {
    if (auto named = try_order(order, groups, slots, state)) return *named;
  }
  fail(fmt::format(
      "its {} + {} parameters are not those of these weights, with or without FlashAttention's layers or a "
      "frozen vision tower",
      groups[0].as_dict().at("params").as_list().size(), groups[1].as_dict().at("params").as_list().size()));
}

at::Tensor step_count(const Value& step) {
  if (const auto* tensor = std::get_if<at::Tensor>(&step.data)) return tensor->to(at::kFloat).reshape({});
  return at::scalar_tensor(step.as_double(), at::kFloat);
}

/// Adds the slot of each part of the parameter.
void split(const Dict& slot, const FileParameter& parameter, std::map<std::string, Dict>& by_name) {
  const auto parts = static_cast<int64_t>(parameter.size());
  for (int64_t i = 0; i < parts; ++i) {
    Dict part;
    part["step"] = step_count(slot.at("step"));
    for (const char* key : {"exp_avg", "exp_avg_sq"}) {
      const at::Tensor& moment = slot.at(key).as_tensor();
      part[key] = parts == 1 ? moment : moment.narrow(0, moment.size(0) / parts * i, moment.size(0) / parts);
    }
    by_name[parameter[static_cast<std::size_t>(i)]] = std::move(part);
  }
}

double largest_decay(const List& groups) {
  double decay = 0.0;
  for (const Value& group : groups) decay = std::max(decay, group.as_dict().at("weight_decay").as_double());
  return decay;
}

Dict group_options(const Dict& group, double weight_decay) {
  Dict options;
  for (const auto& [key, value] : group) {
    if (key != train::DictKey("params") && key != train::DictKey("param_names")) options[key] = value;
  }
  options["weight_decay"] = weight_decay;
  return options;
}

/// {name: number} of a state whose groups are named.
std::map<std::string, int64_t> numbers_by_name(const Dict& saved) {
  std::map<std::string, int64_t> numbers;
  for (const Value& group : saved.at("param_groups").as_list()) {
    const FileGroup named = named_group(group.as_dict());
    for (std::size_t i = 0; i < named.numbers.size(); ++i) {
      numbers[named.parameters[i].front()] = named.numbers[i];
    }
  }
  return numbers;
}

}  // namespace

bool has_weight_decay(std::string_view name) {
  constexpr std::string_view kPlain[] = {"bn", "ln", "bias", "logit_scale"};
  return std::none_of(std::begin(kPlain), std::end(kPlain),
                      [&](std::string_view part) { return name.find(part) != std::string_view::npos; });
}

Dict normalise_optimizer(const Dict& saved, const Dict& state) {
  const List& groups = saved.at("param_groups").as_list();
  if (groups.empty()) fail("expected groups of parameters, found none");
  const Dict& slots = saved.at("state").as_dict();
  std::set<std::string> known;
  std::map<std::string, Dict> by_name;  // a parameter that had no step yet has none
  for (const FileGroup& group : name_groups(groups, slots, state)) {
    for (std::size_t i = 0; i < group.numbers.size(); ++i) {
      known.insert(group.parameters[i].begin(), group.parameters[i].end());
      if (const Value* slot = slots.find(group.numbers[i])) split(slot->as_dict(), group.parameters[i], by_name);
    }
  }

  Dict result_slots;
  List result_groups;
  int64_t number = 0;
  for (const bool decays : {false, true}) {
    Dict group = group_options(groups.front().as_dict(), decays ? largest_decay(groups) : 0.0);
    List numbers, names;
    for (const FileParameter& parameter : file_parameters(state, AttentionForm::kPlain)) {
      const std::string& name = parameter.front();
      if (has_weight_decay(name) != decays || !known.contains(name)) continue;
      if (const auto slot = by_name.find(name); slot != by_name.end()) result_slots[number] = std::move(slot->second);
      numbers.emplace_back(number++);
      names.emplace_back(name);
    }
    group["params"] = std::move(numbers);
    group["param_names"] = std::move(names);
    result_groups.emplace_back(std::move(group));
  }
  Dict result;
  result["state"] = std::move(result_slots);
  result["param_groups"] = std::move(result_groups);
  return result;
}

Dict match_optimizer(const Dict& saved, const Dict& own) {
  const std::map<std::string, int64_t> saved_numbers = numbers_by_name(saved);
  const Dict& saved_slots = saved.at("state").as_dict();
  std::vector<std::string> missing;
  Dict slots;
  for (const auto& [name, number] : numbers_by_name(own)) {
    const auto saved_number = saved_numbers.find(name);
    if (saved_number == saved_numbers.end()) {
      missing.push_back(name);
    } else if (const Value* slot = saved_slots.find(saved_number->second)) {
      slots[number] = *slot;
    }
  }
  if (!missing.empty()) fail(fmt::format("the checkpoint has none of {}", fmt::join(missing, ", ")));
  List groups;
  for (const Value& group : own.at("param_groups").as_list()) {
    Dict options = group.as_dict();
    options["lr"] = saved.at("param_groups").as_list().front().as_dict().at("lr");
    groups.emplace_back(std::move(options));
  }
  Dict result;
  result["state"] = std::move(slots);
  result["param_groups"] = std::move(groups);
  return result;
}

}  // namespace strobe::clip
