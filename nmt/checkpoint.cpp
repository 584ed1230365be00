#include "nmt/checkpoint.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "train/checkpoint.h"

namespace strobe::nmt {
namespace {

at::Tensor to_tensor(const std::string& bytes) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(bytes.size())}, at::dtype(at::kByte));
  std::copy(bytes.begin(), bytes.end(), tensor.mutable_data_ptr<uint8_t>());
  return tensor;
}

Vocabulary to_vocabulary(const train::Value& value, const std::string& origin) {
  const at::Tensor& tensor = value.as_tensor();
  if (tensor.scalar_type() != at::kByte || tensor.dim() != 1) {
    throw train::CheckpointError(origin + ": expected a vector of bytes");
  }
  const at::Tensor bytes = tensor.contiguous();
  const auto* begin = reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>());
  return Vocabulary::from_bytes(std::string(begin, static_cast<std::size_t>(bytes.numel())), origin);
}

void require_size(const Vocabulary& vocabulary, int64_t expected, const std::string& origin) {
  if (vocabulary.size() != expected) {
    throw train::CheckpointError(origin + ": expected " + std::to_string(expected) +
                                 " pieces as in the configuration, found " + std::to_string(vocabulary.size()));
  }
}

Vocabularies vocabularies_of(const train::Dict& content) {
  return {to_vocabulary(content.at(std::string("source_vocabulary")), "source vocabulary"),
          to_vocabulary(content.at(std::string("target_vocabulary")), "target vocabulary")};
}

/// Calls `read` and names the file in what it throws.
template <typename Read>
auto naming(const std::filesystem::path& file, const Read& read) {
  try {
    return read();
  } catch (const Error& error) {
    throw train::CheckpointError(file.string() + ": " + error.what());
  }
}

std::string text_of(const train::Value& value) {
  if (std::holds_alternative<std::string>(value.data)) return value.as_string();
  return std::to_string(value.as_int());
}

/// "d_model 512, not 256; norm pre, not post", of what weights depend on.
std::string differences(const ModelConfig& theirs, const ModelConfig& ours) {
  const train::Dict found = to_dict(theirs), expected = to_dict(ours);
  std::string text;
  for (const char* name :
       {"d_model", "num_heads", "d_ff", "encoder_layers", "decoder_layers", "norm", "activation", "tie_embeddings"}) {
    const std::string a = text_of(found.at(std::string(name))), b = text_of(expected.at(std::string(name)));
    if (a != b) text += (text.empty() ? "" : "; ") + std::string(name) + " " + a + ", not " + b;
  }
  return text;
}

TranslationModel build(const train::Dict& content, at::Device device, const std::string& attn_type) {
  ModelConfig config = model_config(content.at(std::string("config")).as_dict());
  if (!attn_type.empty()) config.attn_type = attn_type;
  TranslationModel loaded;
  loaded.vocabularies = vocabularies_of(content);
  require_size(loaded.vocabularies.source, config.source_vocabulary, "source vocabulary");
  require_size(loaded.vocabularies.target, config.target_vocabulary, "target vocabulary");
  require_joint_if_tied(config, loaded.vocabularies);
  loaded.bleu_tokenizer = bleu_tokenizer(content.at(std::string("bleu_tokenize")).as_string());
  loaded.model = Transformer(config);
  train::load_module_state(*loaded.model, content.at(std::string("model")).as_dict());
  loaded.model->to(device);
  loaded.model->eval();
  return loaded;
}

bool is_translation_model(const train::Dict& content) {
  const train::Value* task = content.find(std::string("task"));
  return task != nullptr && std::holds_alternative<std::string>(task->data) && task->as_string() == "nmt";
}

}  // namespace

train::Dict describe(const ModelConfig& config, const Vocabularies& vocabularies, BleuTokenizer bleu_tokenizer) {
  train::Dict dict;
  dict["task"] = "nmt";
  dict["config"] = to_dict(config);
  dict["source_vocabulary"] = to_tensor(vocabularies.source.bytes());
  dict["target_vocabulary"] = to_tensor(vocabularies.target.bytes());
  dict["bleu_tokenize"] = std::string(name(bleu_tokenizer));
  return dict;
}

train::Dict load_translation_checkpoint(const std::filesystem::path& file) {
  train::Dict content = train::load_checkpoint(file);
  if (!is_translation_model(content)) {
    throw train::CheckpointError(file.string() +
                                 ": a checkpoint, but of no translation model: expected one that `nmt train` wrote");
  }
  return content;
}

Vocabularies checkpoint_vocabularies(const std::filesystem::path& file) {
  const train::Dict content = load_translation_checkpoint(file);
  return naming(file, [&] { return vocabularies_of(content); });
}

void require_same_model(const train::Dict& content, const std::filesystem::path& file, const ModelConfig& config,
                        const Vocabularies& vocabularies, const std::string& owner) {
  naming(file, [&] {
    const Vocabularies found = vocabularies_of(content);
    const auto require_none = [&](const std::string& what, const std::string& difference) {
      if (!difference.empty())
        throw train::CheckpointError("its " + what + " is not that of " + owner + ": " + difference);
    };
    require_none("source vocabulary", found.source.difference(vocabularies.source));
    require_none("target vocabulary", found.target.difference(vocabularies.target));
    require_none("configuration", differences(model_config(content.at(std::string("config")).as_dict()), config));
  });
}

void require_joint_if_tied(const ModelConfig& config, const Vocabularies& vocabularies) {
  if (config.tie_embeddings != "all") return;
  const std::string difference = vocabularies.source.difference(vocabularies.target);
  if (difference.empty()) return;
  throw Error(
      "tie_embeddings all: expected one vocabulary for both sides (`strobe nmt prepare --joint-vocabulary` "
      "makes one), found a source vocabulary of " +
      difference + " as in the target's");
}

TranslationModel load_translation_model(const std::filesystem::path& file, at::Device device,
                                        const std::string& attn_type) {
  const train::Dict content = load_translation_checkpoint(file);
  return naming(file, [&] { return build(content, device, attn_type); });
}

}  // namespace strobe::nmt
