#include "clip/evaluation/annotations.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "clip/data/lines.h"
#include "strobe/types.h"

namespace strobe::clip {
namespace {

Id id_at(const nlohmann::json& value, const char* key) {
  std::optional<Id> id = id_of_json(value);
  if (!id) throw Error(std::string(key) + ": expected an integer or a string, found " + value.dump());
  return *std::move(id);
}

Annotation parse(const std::string& line, const RetrievalKeys& keys) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) throw Error("expected a JSON object");
  for (const char* key : {keys.query, keys.answers}) {
    if (!object.contains(key)) throw Error(std::string("has no ") + key);
  }
  if (!object[keys.answers].is_array()) throw Error(std::string(keys.answers) + ": expected a list");
  Annotation annotation{id_at(object[keys.query], keys.query), {}};
  for (const nlohmann::json& answer : object[keys.answers]) annotation.answers.push_back(id_at(answer, keys.answers));
  return annotation;
}

}  // namespace

RetrievalKeys retrieval_keys(Retrieval retrieval) {
  return retrieval == Retrieval::kTextToImage ? RetrievalKeys{"text_id", "image_ids"}
                                              : RetrievalKeys{"image_id", "text_ids"};
}

std::vector<Annotation> read_annotations(const std::filesystem::path& file, Retrieval retrieval) {
  std::vector<Annotation> annotations;
  std::unordered_map<Id, std::size_t> place;
  LineReader lines(file);
  while (lines.next()) {
    Annotation annotation;
    try {
      annotation = parse(lines.text(), retrieval_keys(retrieval));
    } catch (const Error& error) {
      throw Error(file.string() + ", line " + std::to_string(lines.number()) + ": " + error.what());
    }
    const auto [known, is_new] = place.try_emplace(annotation.query, annotations.size());
    if (is_new) {
      annotations.push_back(std::move(annotation));
    } else {
      annotations[known->second].answers = std::move(annotation.answers);
    }
  }
  return annotations;
}

std::vector<Annotation> transposed(const std::vector<Annotation>& annotations) {
  std::vector<Annotation> result;
  std::unordered_map<Id, std::size_t> place;
  for (const Annotation& annotation : annotations) {
    for (const Id& answer : annotation.answers) {
      const auto [known, is_new] = place.try_emplace(answer, result.size());
      if (is_new) result.push_back({answer, {}});
      result[known->second].answers.push_back(annotation.query);
    }
  }
  return result;
}

}  // namespace strobe::clip
