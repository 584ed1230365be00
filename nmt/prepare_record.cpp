#include "nmt/prepare_record.h"

#include <nlohmann/json.hpp>

#include "train/file_hash.h"

namespace strobe::nmt {
namespace {

using Json = nlohmann::ordered_json;

Json description(const VocabularyOptions& options, int64_t pieces) {
  return {{"type", options.type},
          {"pieces", pieces},
          {"pieces_asked_for", options.size},
          {"character_coverage", options.character_coverage},
          {"normalization", options.normalization}};
}

}  // namespace

Json prepare_record(const PrepareOptions& options, const PrepareInput& input, const PrepareSummary& summary) {
  Json files = Json::array();
  for (const std::filesystem::path& file : input.files) {
    files.push_back(
        {{"file", file.string()}, {"bytes", std::filesystem::file_size(file)}, {"sha1", train::file_hash(file)}});
  }
  Json record;
  record["inputs"] = files;
  record["built_in_corpus"] = options.demo;
  record["seed"] = options.seed;
  record["pairs"] = {{"train", summary.train}, {"dev", summary.dev}, {"test", summary.test}};
  record["skipped"] = {{"no_tab", summary.skipped.no_tab},
                       {"empty_side", summary.skipped.empty_side},
                       {"invalid_utf8", summary.skipped.invalid_utf8},
                       {"first", summary.skipped.first}};
  record["length_limits"] = {
      {"min", options.lengths.min}, {"max", options.lengths.max}, {"max_ratio", options.lengths.max_ratio}};
  record["left_out"] = {{"empty", summary.left_out.empty},
                        {"too_short", summary.left_out.too_short},
                        {"too_long", summary.left_out.too_long},
                        {"ratio", summary.left_out.ratio}};
  if (!options.vocabularies_from.empty()) {
    record["vocabularies_from"] = options.vocabularies_from.string();
    return record;
  }
  record["joint_vocabulary"] = options.joint_vocabulary;
  const VocabularyOptions& source = options.joint_vocabulary ? options.target_vocabulary : options.source_vocabulary;
  record["source_vocabulary"] = description(source, summary.source_pieces);
  record["target_vocabulary"] = description(options.target_vocabulary, summary.target_pieces);
  return record;
}

}  // namespace strobe::nmt
