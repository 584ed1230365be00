#include "clip/checkpoint/state.h"

#include <string_view>
#include <utility>

namespace strobe::clip {
namespace {

using train::CheckpointError;
using train::Dict;
using train::Value;

/// Endings of the file's names and of ours.
constexpr std::pair<std::string_view, std::string_view> kRenamed[] = {
    {"attn.Wqkv.weight", "attn.in_proj_weight"},
    {"attn.Wqkv.bias", "attn.in_proj_bias"},
    {"attention.self.out_proj.weight", "attention.output.dense.weight"},
    {"attention.self.out_proj.bias", "attention.output.dense.bias"},
    {"LayerNorm.gamma", "LayerNorm.weight"},
    {"LayerNorm.beta", "LayerNorm.bias"},
};

class Normaliser {
 public:
  void add(std::string name, const Value& value) {
    if (name.starts_with("module.")) name.erase(0, 7);
    if (name.find("bert.pooler") != std::string::npos) return;
    if (!std::holds_alternative<at::Tensor>(value.data)) {
      throw CheckpointError("state dict: " + name + ": expected a Tensor, found " + value.type_name());
    }
    for (const char* kind : {"weight", "bias"}) {
      if (const std::string packed = std::string("attention.self.Wqkv.") + kind; name.ends_with(packed)) {
        return split(name.substr(0, name.size() - std::string_view("Wqkv.").size() - std::string_view(kind).size()),
                     kind, value.as_tensor());
      }
    }
    for (const auto& [old_ending, ending] : kRenamed) {
      if (!name.ends_with(old_ending)) continue;
      name.replace(name.size() - old_ending.size(), old_ending.size(), ending);
      break;
    }
    put(name, value.as_tensor());
  }

  Dict run() && { return std::move(state_); }

 private:
  void split(const std::string& prefix, const std::string& kind, const at::Tensor& packed) {
    if (packed.dim() == 0 || packed.size(0) % 3 != 0) {
      throw CheckpointError("state dict: " + prefix + "Wqkv." + kind + ": expected three equal parts");
    }
    const int64_t rows = packed.size(0) / 3;
    int64_t part = 0;
    for (const char* name : {"query.", "key.", "value."})
      put(prefix + name + kind, packed.narrow(0, rows * part++, rows));
  }

  void put(const std::string& name, const at::Tensor& tensor) {
    if (state_.contains(name)) throw CheckpointError("state dict: there are two tensors " + name);
    state_[name] = tensor;
  }

  Dict state_;
};

std::string text_of(const train::DictKey& key) {
  if (const auto* number = std::get_if<int64_t>(&key)) return std::to_string(*number);
  return std::get<std::string>(key);
}

void flatten(const std::string& prefix, const Dict& attributes, Dict& flat) {
  for (const auto& [key, value] : attributes) {
    const std::string name = prefix + text_of(key);
    if (const auto* child = std::get_if<Dict>(&value.data)) flatten(name + ".", *child, flat);
    if (std::holds_alternative<at::Tensor>(value.data)) flat[name] = value;
  }
}

}  // namespace

Dict normalise_state(const Dict& state) {
  Normaliser normaliser;
  for (const auto& [key, value] : state) normaliser.add(text_of(key), value);
  return std::move(normaliser).run();
}

Dict flatten_modules(const Dict& root) {
  Dict flat;
  flatten("", root, flat);
  if (flat.size() == 0) throw CheckpointError("expected the weights of a model, found no tensor");
  return flat;
}

Dict in_float32(const Dict& state) {
  Dict converted;
  for (const auto& [key, value] : state) {
    const at::Tensor& tensor = value.as_tensor();
    converted[key] = tensor.is_floating_point() ? tensor.to(at::kFloat) : tensor;
  }
  return converted;
}

}  // namespace strobe::clip
