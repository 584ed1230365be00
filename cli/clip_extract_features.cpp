// strobe clip extract-features: the features of a data set's texts and images.
#include <fmt/format.h>

#include <iostream>
#include <memory>
#include <string>

#include "cli/clip_model_options.h"
#include "cli/commands.h"
#include "cli/count_progress.h"
#include "clip/evaluation/extract.h"

namespace strobe::cli {
namespace {

struct Arguments {
  bool images = false, texts = false, debug = false;
  std::string image_data = "../Multimodal_Retrieval/lmdb/test/imgs";
  std::string text_data = "../Multimodal_Retrieval/test_texts.jsonl";
  std::string image_output, text_output;
  clip::ImageExtraction image;
  clip::TextExtraction text;
  ClipModelOptions model;
};

/// The original's names, both made of the texts' file.
std::string default_text_output(const std::string& text_data) {
  const bool is_jsonl = text_data.ends_with(".jsonl");
  return text_data.substr(0, text_data.size() - (is_jsonl ? 6 : 0)) + ".txt_feat.jsonl";
}

std::string default_image_output(std::string text_data) {
  constexpr std::string_view kEnd = "_texts.jsonl";
  if (text_data.ends_with(kEnd)) text_data.replace(text_data.size() - kEnd.size(), kEnd.size(), "_imgs");
  return text_data + ".img_feat.jsonl";
}

void extract_texts(const Arguments& a, clip::Embedder& embedder) {
  clip::TextExtraction options = a.text;
  options.texts = a.text_data;
  options.output = a.text_output.empty() ? default_text_output(a.text_data) : a.text_output;
  options.context_length = a.model.context_length;
  CountProgress progress("texts");
  const clip::Extracted result =
      clip::extract_text_features(embedder, a.model.tokenizer(), options, std::ref(progress));
  std::cout << fmt::format("{} text features are stored in {}\n", result.features, options.output.string());
}

void extract_images(const Arguments& a, clip::Embedder& embedder) {
  clip::ImageExtraction options = a.image;
  options.images = a.image_data;
  options.output = a.image_output.empty() ? default_image_output(a.text_data) : a.image_output;
  CountProgress progress("images");
  const auto skip = [&](const std::string& key, const std::string& why) {
    progress.note(fmt::format("image {} is skipped: {}", key, why));
  };
  const clip::Extracted result = clip::extract_image_features(embedder, options, skip, std::ref(progress));
  std::cout << fmt::format("{} image features are stored in {}\n", result.features, options.output.string());
  if (result.skipped > 0) std::cout << fmt::format("{} images could not be read\n", result.skipped);
}

void run(const Arguments& a) {
  if (!a.images && !a.texts) throw CLI::RequiredError("--extract-image-feats or --extract-text-feats");
  clip::Embedder embedder = a.model.load();
  if (a.texts) extract_texts(a, embedder);
  if (a.images) extract_images(a, embedder);
}

}  // namespace

void add_clip_extract_features(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("extract-features", "Features of a data set's images and texts");
  const auto a = std::make_shared<Arguments>();
  command->add_flag("--extract-image-feats", a->images, "Extract the images' features");
  command->add_flag("--extract-text-feats", a->texts, "Extract the texts' features");
  command->add_option("--image-data", a->image_data, "The LMDB folder of the images")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("--text-data", a->text_data, "The texts")->type_name("JSONL")->capture_default_str();
  command->add_option("--image-feat-output-path", a->image_output, "[X_imgs.img_feat.jsonl, X of --text-data]")
      ->type_name("JSONL");
  command->add_option("--text-feat-output-path", a->text_output, "[X_texts.txt_feat.jsonl, X of --text-data]")
      ->type_name("JSONL");
  command->add_option("--img-batch-size", a->image.batch_size, "Images a batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--text-batch-size", a->text.batch_size, "Texts a batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--num-workers", a->image.workers, "Threads that read and decode images")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--debug", a->debug, "Accepted for the original's scripts");
  a->model.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
