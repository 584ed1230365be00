// strobe clip make-topk, make-topk-tr: the nearest images of each text, or the nearest texts of each image.
#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/count_progress.h"
#include "cli/nmt_options.h"
#include "clip/evaluation/annotations.h"
#include "clip/evaluation/features.h"
#include "clip/evaluation/nearest.h"
#include "clip/evaluation/python_json.h"
#include "train/atomic_file.h"

namespace strobe::cli {
namespace {

constexpr int64_t kQueriesAtOnce = 4096;

struct Arguments {
  std::filesystem::path image_features, text_features, output;
  clip::NearestNeighbours::Options search;
  RunOptions run;
};

std::string lines_of(const clip::Features& queries, const clip::Features& candidates, const at::Tensor& indices,
                     const clip::RetrievalKeys& keys) {
  std::string lines;
  const int64_t* index = indices.const_data_ptr<int64_t>();
  for (const clip::Id& query : queries.ids) {
    std::vector<clip::Id> answers;
    for (int64_t i = 0; i < indices.size(1); ++i) {
      answers.push_back(candidates.ids[static_cast<std::size_t>(*index++)]);
    }
    lines += clip::ids_line(keys.query, query, keys.answers, answers);
  }
  return lines;
}

void run(const Arguments& a, clip::Retrieval retrieval) {
  const bool to_images = retrieval == clip::Retrieval::kTextToImage;
  clip::NearestNeighbours::Options options = a.search;
  options.device = a.run.start();
  const clip::Features candidates =
      clip::FeatureReader(to_images ? a.image_features : a.text_features, to_images ? "image_id" : "text_id")
          .read_all();
  if (static_cast<int64_t>(candidates.ids.size()) < options.k) {
    std::cerr << fmt::format("warning: expected at least {} candidates, found {}: that many are predicted\n", options.k,
                             candidates.ids.size());
  }
  const clip::NearestNeighbours neighbours(candidates.values, options);
  const clip::RetrievalKeys keys = clip::retrieval_keys(retrieval);
  clip::FeatureReader reader(to_images ? a.text_features : a.image_features, keys.query);
  CountProgress progress("MB of queries");
  constexpr int64_t kMegabyte = 1'000'000;
  train::AtomicFile file(a.output);
  while (const std::optional<clip::Features> queries = reader.read(kQueriesAtOnce)) {
    file.write(lines_of(*queries, candidates, neighbours.search(queries->values).indices, keys));
    progress(reader.bytes_read() / kMegabyte, reader.file_bytes() / kMegabyte);
  }
  file.commit();
  std::cout << fmt::format("Top-{} predictions are saved in {}\n", a.search.k, a.output.string());
}

void add(CLI::App& parent, const char* name, const char* help, clip::Retrieval retrieval) {
  CLI::App* command = parent.add_subcommand(name, help);
  const auto a = std::make_shared<Arguments>();
  command->add_option("--image-feats", a->image_features, "The images' features")->type_name("JSONL")->required();
  command->add_option("--text-feats", a->text_features, "The texts' features")->type_name("JSONL")->required();
  command->add_option("--top-k", a->search.k, "Predictions for each query")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--eval-batch-size", a->search.candidates_per_block,
                   "Candidates whose inner products are computed together; the predictions do not depend on it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--output", a->output, "The predictions")->type_name("JSONL")->required();
  a->run.add_device(*command);
  command->callback([a, retrieval] { run(*a, retrieval); });
}

}  // namespace

void add_clip_make_topk(CLI::App& parent) {
  add(parent, "make-topk", "The nearest images of each text, from features", clip::Retrieval::kTextToImage);
  add(parent, "make-topk-tr", "The nearest texts of each image, from features", clip::Retrieval::kImageToText);
}

}  // namespace strobe::cli
