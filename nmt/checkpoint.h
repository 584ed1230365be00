// What a checkpoint says besides weights, so that it translates alone: the configuration and both vocabularies.
#pragma once

#include <filesystem>
#include <string>

#include "nmt/bleu.h"
#include "nmt/config.h"
#include "nmt/dataset.h"
#include "nmt/transformer.h"
#include "train/value.h"

namespace strobe::nmt {

/// A translation model with what is needed to use it.
struct TranslationModel {
  Transformer model = nullptr;
  Vocabularies vocabularies;
  BleuTokenizer bleu_tokenizer = BleuTokenizer::kZh;  // for the target language
};

/// {"task": "nmt", "config": {...}, "source_vocabulary": uint8 tensor, "target_vocabulary": uint8 tensor,
/// "bleu_tokenize": name}; the vocabularies are the bytes of their SentencePiece models. The trainer adds "model".
train::Dict describe(const ModelConfig& config, const Vocabularies& vocabularies, BleuTokenizer bleu_tokenizer);

/// What a checkpoint of `nmt train` holds. Throws train::CheckpointError naming the file where it is missing,
/// truncated, or no translation model.
train::Dict load_translation_checkpoint(const std::filesystem::path& file);

/// The vocabularies of such a checkpoint; throws as load_translation_checkpoint().
Vocabularies checkpoint_vocabularies(const std::filesystem::path& file);

/// Throws train::CheckpointError naming `file` unless the weights that it holds, read as `content`, mean in a model of
/// `config` with these vocabularies, which are those of `owner`, what they meant where they were trained: where a
/// vocabulary is another it says of which side and the first difference, else which entries of the configuration
/// differ. Dropouts and attn_type may.
void require_same_model(const train::Dict& content, const std::filesystem::path& file, const ModelConfig& config,
                        const Vocabularies& vocabularies, const std::string& owner);

/// Throws strobe::Error where the configuration ties the embeddings of both sides and their vocabularies are not one.
void require_joint_if_tied(const ModelConfig& config, const Vocabularies& vocabularies);

/// The model on `device`, in eval mode; `attn_type` replaces the one it was trained with unless empty (all compute the
/// same function). Throws train::CheckpointError naming the file where it is missing, truncated, or no translation
/// model.
TranslationModel load_translation_model(const std::filesystem::path& file, at::Device device,
                                        const std::string& attn_type = "");

}  // namespace strobe::nmt
