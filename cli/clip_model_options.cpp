#include "cli/clip_model_options.h"

#include "cli/options.h"
#include "clip/model/config.h"
#include "clip/text/installed_package.h"
#include "strobe/types.h"

namespace strobe::cli {
namespace {

train::Precision precision_of(const std::string& name, const std::string& attn_type, at::Device device) {
  if (name == "fp32") return train::Precision::kFp32;
  if (name == "amp_bf16") return train::Precision::kBf16;
  if (name == "fp16") {
    if (!device.is_cuda())
      throw Error("--precision fp16: expected a GPU, found the CPU; amp and fp32 compute in fp32 here");
    return train::Precision::kFp16;
  }
  // What the original's evaluation calls amp computes in fp32; its FlashAttention takes 16 bits alone.
  return device.is_cuda() && attn_type != "dotscale" ? train::Precision::kFp16 : train::Precision::kFp32;
}

}  // namespace

void ClipModelOptions::add_to(CLI::App& command) {
  command.add_option("--resume", resume, "The model: a checkpoint of any form that `clip convert` reads")
      ->type_name("FILE")
      ->required();
  command.add_option("--vision-model", vision_model, "The image tower that it must be [what the checkpoint holds]")
      ->check(one_of(clip::vision_names()));
  command.add_option("--text-model", text_model, "The text tower that it must be [what the checkpoint holds]")
      ->check(one_of(clip::text_names()));
  command.add_option("--precision", precision, "amp: fp32, or fp16 with FlashAttention on a GPU; amp_bf16; fp16; fp32")
      ->check(one_of({"amp", "amp_bf16", "fp16", "fp32"}))
      ->capture_default_str();
  command.add_flag("--use-flash-attention", use_flash_attention, "FlashAttention-2 in both towers");
  add_attn_type(command, attn_type);
  command.add_option("--vocab", vocabulary, "vocab.txt [that of the installed cn_clip]")->type_name("FILE");
  command.add_option("--context-length", context_length, "Tokens of a text, [CLS] and [SEP] included")
      ->check(CLI::Range(2, 512))
      ->capture_default_str();
  run.add_device(command);
}

clip::Embedder ClipModelOptions::load() const {
  const at::Device device = run.start();
  clip::ClipOptions options;
  options.attn_type = !attn_type.empty() ? attn_type : use_flash_attention ? "imp_flash_attn" : "dotscale";
  return {clip::load_clip(resume, vision_model, text_model, options), device,
          precision_of(precision, options.attn_type, device)};
}

clip::BertTokenizer ClipModelOptions::tokenizer() const {
  return clip::BertTokenizer(vocabulary.empty() ? clip::default_vocabulary() : vocabulary);
}

}  // namespace strobe::cli
