// strobe clip zeroshot: zero-shot classification of a folder of images.
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/clip_model_options.h"
#include "cli/commands.h"
#include "cli/count_progress.h"
#include "clip/data/lines.h"
#include "clip/evaluation/python_json.h"
#include "clip/evaluation/templates.h"
#include "clip/evaluation/zero_shot.h"
#include "clip/text/installed_package.h"
#include "strobe/types.h"
#include "train/atomic_file.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::filesystem::path data, labels, index, save_dir, templates;
  std::string dataset = "imagenet";
  clip::ZeroShotOptions classification;
  ClipModelOptions model;
};

std::vector<std::string> read_labels(const std::filesystem::path& file, std::size_t classes) {
  std::vector<std::string> labels;
  clip::LineReader lines(file);
  while (lines.next()) labels.push_back(lines.text());
  if (labels.size() == classes) return labels;
  throw Error(fmt::format("--label-file {}: expected a label for each of the {} folders, found {}", file.string(),
                          classes, labels.size()));
}

/// The rows that the index file lists, in its order.
at::Tensor rearranged(const at::Tensor& rows, const std::filesystem::path& file) {
  const nlohmann::json list = nlohmann::json::parse(std::ifstream(file), nullptr, /*allow_exceptions=*/false);
  const auto fail = [&](const std::string& found) {
    throw Error(
        fmt::format("--index {}: expected a list of numbers below {}, found {}", file.string(), rows.size(0), found));
  };
  if (!list.is_array()) fail("something else");
  std::vector<int64_t> index;
  for (const nlohmann::json& entry : list) {
    if (!entry.is_number_integer() || entry < -rows.size(0) || entry >= rows.size(0)) fail(entry.dump());
    const auto number = entry.get<int64_t>();
    index.push_back(number < 0 ? number + rows.size(0) : number);  // as Python counts
  }
  return rows.index_select(0, at::tensor(index, at::kLong));
}

std::string python_text(double value) {
  std::string text;
  clip::append_float(text, value);
  return text;
}

void run(const Arguments& a) {
  const clip::ImageFolder folder = clip::read_image_folder(a.data);
  const std::vector<std::string> labels = read_labels(a.labels, folder.classes.size());
  const std::vector<std::string> templates = clip::read_templates(
      a.templates.empty() ? clip::default_templates() : a.templates, clip::template_set(a.dataset));
  clip::Embedder embedder = a.model.load();
  CountProgress classes("classes");
  const at::Tensor classifier = clip::zero_shot_classifier(embedder, a.model.tokenizer(), labels, templates,
                                                           a.model.context_length, std::ref(classes));
  CountProgress images("images");
  const auto skip = [&](const std::string& file, const std::string& why) {
    images.note(fmt::format("image {} is skipped: {}", file, why));
  };
  clip::ZeroShotResult result = clip::classify(embedder, folder, classifier, a.classification, skip, std::ref(images));
  if (!a.index.empty()) result.probabilities = rearranged(result.probabilities, a.index);
  const std::filesystem::path output = a.save_dir / (a.dataset + ".json");
  train::write_atomically(output, [&](train::AtomicFile& file) {
    file.write(
        clip::elevater_json(embedder.model(), embedder.model()->vision_config().name, a.dataset, result.probabilities));
  });
  if (result.skipped > 0) std::cout << fmt::format("{} images could not be read\n", result.skipped);
  std::cout << fmt::format("Wrote {}\nzeroshot-top1: {}\n", output.string(), python_text(result.top1()));
}

}  // namespace

void add_clip_zeroshot(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("zeroshot", "Classify images by the texts of their classes");
  const auto a = std::make_shared<Arguments>();
  command->add_option("--datapath", a->data, "The images, one folder a class")->type_name("DIR")->required();
  command->add_option("--label-file", a->labels, "The classes' names, a line each in the order of the folders")
      ->type_name("FILE")
      ->required();
  command->add_option("--dataset", a->dataset, "Its name: chooses the templates and names the result")
      ->capture_default_str();
  command->add_option("--index", a->index, "A JSON list: the rows of the result, in this order")->type_name("JSON");
  command->add_option("--save-dir", a->save_dir, "Where the result goes: DATASET.json [here]")->type_name("DIR");
  command->add_option("--templates", a->templates, "[that of the installed cn_clip]")->type_name("FILE");
  command->add_option("--img-batch-size", a->classification.batch_size, "Images a batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--num-workers", a->classification.workers, "Threads that read and decode images")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  a->model.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace strobe::cli
