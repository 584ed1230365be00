#include "clip/checkpoint/parameter_order.h"

#include <array>
#include <initializer_list>
#include <string_view>

namespace strobe::clip {
namespace {

/// Walks the modules of the original's model (cn_clip/clip/model.py, modeling_bert.py) in the order of their
/// construction, each module's own parameters before its children's.
class Walk {
 public:
  Walk(const train::Dict& state, AttentionForm form) : state_(state), form_(form) {}

  std::vector<FileParameter> run() && {
    add({"text_projection"});
    add({"logit_scale"});
    state_.contains("visual.class_embedding") ? vision_transformer() : resnet();
    bert();
    return std::move(parameters_);
  }

 private:
  void add(FileParameter names) { parameters_.push_back(std::move(names)); }

  void weight_and_bias(const std::string& module) {
    add({module + ".weight"});
    add({module + ".bias"});
  }

  bool has(const std::string& name) const { return state_.contains(name); }

  void vision_transformer() {
    for (const char* name : {"class_embedding", "positional_embedding", "proj", "conv1.weight"}) {
      add({std::string("visual.") + name});
    }
    weight_and_bias("visual.ln_pre");
    for (int64_t i = 0; has(block(i) + "ln_1.weight"); ++i) {
      add({block(i) + "attn.in_proj_weight"});
      add({block(i) + "attn.in_proj_bias"});
      for (const char* module : {"attn.out_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2"}) {
        weight_and_bias(block(i) + module);
      }
    }
    weight_and_bias("visual.ln_post");
  }

  static std::string block(int64_t i) { return "visual.transformer.resblocks." + std::to_string(i) + "."; }

  void convolutions(const std::string& prefix) {
    for (const char* number : {"1", "2", "3"}) {
      add({prefix + "conv" + number + ".weight"});
      weight_and_bias(prefix + "bn" + number);
    }
  }

  void resnet() {
    convolutions("visual.");
    for (const char* layer : {"1", "2", "3", "4"}) {
      for (int64_t i = 0;; ++i) {
        const std::string prefix = std::string("visual.layer") + layer + "." + std::to_string(i) + ".";
        if (!has(prefix + "conv1.weight")) break;
        convolutions(prefix);
        if (!has(prefix + "downsample.0.weight")) continue;
        add({prefix + "downsample.0.weight"});
        weight_and_bias(prefix + "downsample.1");
      }
    }
    add({"visual.attnpool.positional_embedding"});
    for (const char* part : {"k", "q", "v", "c"}) weight_and_bias(std::string("visual.attnpool.") + part + "_proj");
  }

  void bert() {
    for (const char* table : {"word", "position", "token_type"}) {
      add({std::string("bert.embeddings.") + table + "_embeddings.weight"});
    }
    weight_and_bias("bert.embeddings.LayerNorm");
    for (int64_t i = 0; has(layer(i) + "output.dense.weight"); ++i) {
      self_attention(layer(i) + "attention.self.");
      for (const char* module : {"attention.output.dense", "attention.output.LayerNorm", "intermediate.dense",
                                 "output.dense", "output.LayerNorm"}) {
        weight_and_bias(layer(i) + module);
      }
    }
  }

  void self_attention(const std::string& prefix) {
    const std::string query = prefix + "query", key = prefix + "key", value = prefix + "value";
    if (form_ == AttentionForm::kPlain) {
      for (const std::string& module : {query, key, value}) weight_and_bias(module);
    } else {
      for (const char* kind : {".weight", ".bias"}) add({query + kind, key + kind, value + kind});
    }
  }

  static std::string layer(int64_t i) { return "bert.encoder.layer." + std::to_string(i) + "."; }

  const train::Dict& state_;
  AttentionForm form_;
  std::vector<FileParameter> parameters_;
};

}  // namespace

std::vector<FileParameter> file_parameters(const train::Dict& state, AttentionForm form) {
  return Walk(state, form).run();
}

}  // namespace strobe::clip
