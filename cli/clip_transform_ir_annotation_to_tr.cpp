// strobe clip transform-ir-annotation-to-tr: annotations of image-to-text retrieval from those of text-to-image.
#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "clip/evaluation/annotations.h"
#include "clip/evaluation/python_json.h"
#include "train/atomic_file.h"

namespace strobe::cli {
namespace {

void run(const std::string& input) {
  const clip::RetrievalKeys keys = clip::retrieval_keys(clip::Retrieval::kImageToText);
  const auto annotations = clip::read_annotations(input, clip::Retrieval::kTextToImage);
  const std::string output = input.substr(0, input.size() - (input.ends_with(".jsonl") ? 6 : 0)) + ".tr.jsonl";
  train::AtomicFile file(output);
  for (const clip::Annotation& annotation : clip::transposed(annotations)) {
    file.write(clip::ids_line(keys.query, annotation.query, keys.answers, annotation.answers));
  }
  file.commit();
  std::cout << fmt::format("Wrote {}\n", output);
}

}  // namespace

void add_clip_transform_ir_annotation_to_tr(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand("transform-ir-annotation-to-tr",
                                            "From the images of each text to the texts of each image: X.tr.jsonl");
  const auto input = std::make_shared<std::string>();
  command->add_option("--input", *input, "Annotations with text_id and image_ids")->type_name("X.jsonl")->required();
  command->callback([input] { run(*input); });
}

}  // namespace strobe::cli
