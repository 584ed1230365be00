// strobe clip evaluation, evaluation-tr: recall of predictions.
#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "clip/evaluation/evaluate.h"
#include "train/atomic_file.h"

namespace strobe::cli {
namespace {

struct Arguments {
  std::filesystem::path annotations, predictions, output;
};

void write(const std::filesystem::path& file, const std::string& json) {
  train::write_atomically(file, [&](train::AtomicFile& out) { out.write(json); });
}

void run(const Arguments& a, clip::Retrieval retrieval) {
  clip::RecallAtK recall;
  try {
    recall = clip::evaluate_retrieval(a.annotations, a.predictions, retrieval);
  } catch (const Error& error) {  // scripts look into the file
    write(a.output, clip::failure_json(error.what()));
    std::cerr << fmt::format("The evaluation failed: {}\n", error.what());
    throw CLI::RuntimeError(1);
  }
  write(a.output, clip::result_json(recall));
  std::cout << fmt::format("R@1 {:.2f}  R@5 {:.2f}  R@10 {:.2f}  mean recall {:.2f}\n", 100 * recall.r1,
                           100 * recall.r5, 100 * recall.r10, 100 * recall.mean());
}

void add(CLI::App& parent, const char* name, const char* help, clip::Retrieval retrieval) {
  CLI::App* command = parent.add_subcommand(name, help);
  const auto a = std::make_shared<Arguments>();
  command->add_option("annotations", a->annotations, "What is right")->type_name("JSONL")->required();
  command->add_option("predictions", a->predictions, "What make-topk found, ten for each query")
      ->type_name("JSONL")
      ->required();
  command->add_option("output", a->output, "The recalls")->type_name("JSON")->required();
  command->callback([a, retrieval] { run(*a, retrieval); });
}

}  // namespace

void add_clip_evaluation(CLI::App& parent) {
  add(parent, "evaluation", "Recall of text-to-image retrieval", clip::Retrieval::kTextToImage);
  add(parent, "evaluation-tr", "Recall of image-to-text retrieval", clip::Retrieval::kImageToText);
}

}  // namespace strobe::cli
