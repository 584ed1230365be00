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

TranslationModel build(const train::Dict& content, at::Device device, const std::string& attn_type) {
  ModelConfig config = model_config(content.at(std::string("config")).as_dict());
  if (!attn_type.empty()) config.attn_type = attn_type;
  TranslationModel loaded;
  loaded.vocabularies.source = to_vocabulary(content.at(std::string("source_vocabulary")), "source vocabulary");
  loaded.vocabularies.target = to_vocabulary(content.at(std::string("target_vocabulary")), "target vocabulary");
  require_size(loaded.vocabularies.source, config.source_vocabulary, "source vocabulary");
  require_size(loaded.vocabularies.target, config.target_vocabulary, "target vocabulary");
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

TranslationModel load_translation_model(const std::filesystem::path& file, at::Device device,
                                        const std::string& attn_type) {
  const train::Dict content = train::load_checkpoint(file);
  if (!is_translation_model(content)) {
    throw train::CheckpointError(file.string() +
                                 ": a checkpoint, but of no translation model: expected one that `nmt train` wrote");
  }
  try {
    return build(content, device, attn_type);
  } catch (const Error& error) {
    throw train::CheckpointError(file.string() + ": " + error.what());
  }
}

}  // namespace strobe::nmt
