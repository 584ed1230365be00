// strobe clip convert: weights from one form that Chinese-CLIP's users have into another.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/options.h"
#include "clip/checkpoint/checkpoint.h"
#include "clip/checkpoint/hugging_face.h"
#include "clip/checkpoint/hugging_face_folder.h"
#include "clip/checkpoint/pretrained.h"
#include "clip/checkpoint/safetensors.h"
#include "clip/checkpoint/state.h"
#include "clip/checkpoint/towers.h"
#include "train/checkpoint.h"

namespace strobe::cli {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  fs::path input, output;
  std::string to;
  bool drop_optimizer = false;
};

constexpr const char* kOriginal = "chinese-clip";
constexpr const char* kHuggingFace = "hugging-face";
constexpr const char* kSafetensors = "safetensors";
constexpr const char* kClipWeights = "clip-weights";
constexpr const char* kBertWeights = "bert-weights";

std::string form_of(const Arguments& a) {
  if (!a.to.empty()) return a.to;
  const fs::path extension = a.output.extension();
  if (extension == ".pt" || extension == ".pth") return kOriginal;
  if (extension == ".safetensors") return kSafetensors;
  if (extension.empty() || fs::is_directory(a.output)) return kHuggingFace;
  throw CLI::ValidationError("OUTPUT",
                             "no form is known by the name " + a.output.filename().string() + ": say it with --to");
}

/// What a tower begins with, as a plain state dict.
void write_tower(const Arguments& a, train::Dict weights) {
  weights.mark_ordered();
  train::save_checkpoint(a.output, weights);
  std::printf("%zu tensors of %s written to %s\n", weights.size(), a.input.string().c_str(), a.output.string().c_str());
}

void write_model(const Arguments& a, const std::string& form) {
  const bool keeps_optimizer = form == kOriginal && !a.drop_optimizer;
  clip::ClipCheckpoint content =
      keeps_optimizer ? clip::read_clip_checkpoint(a.input) : clip::read_clip_weights(a.input);
  const std::string model = describe(clip::infer_towers(content.state));
  content.state = clip::in_float32(content.state);
  if (form == kOriginal) {
    if (!content.optimizer) content.extra = {};  // a trainer's state is nothing without it
    clip::write_clip_checkpoint(a.output, content);
  } else if (form == kHuggingFace) {
    clip::write_hugging_face(a.output, content.state);
  } else {
    clip::write_safetensors(a.output, clip::to_hugging_face(content.state), {{"format", "pt"}});
  }
  std::printf("%s (epoch %lld @ %lld steps, %s optimizer) written to %s\n", model.c_str(),
              static_cast<long long>(content.epoch), static_cast<long long>(content.step),
              content.optimizer ? "with" : "without", a.output.string().c_str());
}

void run(const Arguments& a) {
  const std::string form = form_of(a);
  if (form == kClipWeights) return write_tower(a, clip::read_openai_weights(a.input));
  if (form == kBertWeights) return write_tower(a, clip::read_bert_weights(a.input));
  write_model(a, form);
}

}  // namespace

void add_clip_convert(CLI::App& parent) {
  CLI::App* command =
      parent.add_subcommand("convert", "Convert weights between Chinese-CLIP's, Hugging Face's and others' forms");
  const auto a = std::make_shared<Arguments>();
  command
      ->add_option(
          "INPUT", a->input,
          "a .pt of Chinese-CLIP or strobe (with or without FlashAttention's layers), a .safetensors file or a "
          "folder of Hugging Face's ChineseCLIPModel, OpenAI's CLIP, BERT's weights")
      ->required();
  command->add_option("OUTPUT", a->output, "the file, or the folder of --to hugging-face")->required();
  command
      ->add_option("--to", a->to,
                   "the form of OUTPUT: chinese-clip (a .pt that the original loads, too), hugging-face (a folder for "
                   "ChineseCLIPModel.from_pretrained), safetensors (its weights alone), clip-weights (what "
                   "--clip-weight-path takes of OpenAI's CLIP), bert-weights (what --bert-weight-path takes of BERT); "
                   "default: by OUTPUT's ending")
      ->check(one_of({kOriginal, kHuggingFace, kSafetensors, kClipWeights, kBertWeights}));
  command->add_flag("--drop-optimizer", a->drop_optimizer,
                    "leave the optimizer's state out of a .pt: a third of the size, for use and for fine-tuning");
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
