#include "clip/evaluation/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "clip/data/lines.h"
#include "clip/evaluation/python_json.h"

namespace strobe::clip {
namespace {

using nlohmann::json;
using Predictions = std::unordered_map<Id, std::vector<Id>>;

/// Python's str() of a JSON value that is no list or object.
std::string python_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (!value.is_number_float()) return value.dump();
  std::string text;
  append_float(text, value.get<double>());
  return text;
}

[[noreturn]] void fail(std::string message) { throw EvaluationError(message); }

Id query_of(const json& object, const std::string& line, const RetrievalKeys& keys) {
  if (!object.contains(keys.query)) fail(fmt::format("There exists one line not containing {}: {}", keys.query, line));
  std::optional<Id> id = id_of_json(object[keys.query]);
  if (!id) {
    fail(fmt::format("Found an invalid {} {}, it should be an integer (not string), please check your schema",
                     keys.query, python_text(object[keys.query])));
  }
  return *std::move(id);
}

/// The predictions of one line, checked in the original's order.
std::vector<Id> predictions_of(const json& object, const std::string& line, const Id& query, Retrieval retrieval) {
  const RetrievalKeys keys = retrieval_keys(retrieval);
  const bool of_text = retrieval == Retrieval::kTextToImage;
  const char* const label = of_text ? "Text_id" : "Image_id";
  if (!object.contains(keys.answers)) {
    fail(fmt::format("There exists one line not containing the predicted {}: {}", keys.answers, line));
  }
  const json& list = object[keys.answers];
  if (!list.is_array()) {
    fail(fmt::format("The {} field of {} {} is not a list, please check your schema", keys.answers, keys.query,
                     query.text));
  }
  if (list.size() != kPredictions) {
    fail(fmt::format("{} {} has wrong number of predicted {}! Require {}, but {} founded.", label, query.text,
                     keys.answers, kPredictions, list.size()));
  }
  std::vector<Id> ids;
  for (const json& value : list) {
    std::optional<Id> id = id_of_json(value);
    if (!id) {
      fail(
          fmt::format("{} {} has an invalid predicted {} {} at rank {}, it should be an integer (not string), please "
                      "check your schema",
                      label, query.text, of_text ? "image_id" : "text_id", python_text(value), ids.size() + 1));
    }
    ids.push_back(*std::move(id));
  }
  if (std::unordered_set<Id>(ids.begin(), ids.end()).size() != ids.size()) {
    fail(fmt::format("{} {} has duplicate topk {} in your prediction. Pleace check again!", label, query.text,
                     of_text ? "images" : "texts"));
  }
  return ids;
}

Predictions read_predictions(const std::filesystem::path& file, Retrieval retrieval) {
  if (!std::filesystem::exists(file)) fail("The submission file is not found!");
  Predictions predictions;
  LineReader lines(file);
  while (lines.next()) {
    const json object = json::parse(lines.text(), nullptr, /*allow_exceptions=*/false);
    if (object.is_discarded()) fail("Cannot parse this line into json object: " + lines.text());
    const Id query = query_of(object, lines.text(), retrieval_keys(retrieval));
    predictions[query] = predictions_of(object, lines.text(), query, retrieval);
  }
  return predictions;
}

void require_all(const std::vector<Annotation>& annotations, const Predictions& predictions, Retrieval retrieval) {
  std::string missing;
  for (const Annotation& annotation : annotations) {
    if (!predictions.contains(annotation.query)) missing += (missing.empty() ? "" : ", ") + annotation.query.text;
  }
  if (missing.empty()) return;
  fail(fmt::format("The following {}s have no prediction in your submission, please check again: {}",
                   retrieval_keys(retrieval).query, missing));
}

/// The place of the first prediction that is an answer; kPredictions where none is.
std::ptrdiff_t rank_of(const std::vector<Id>& predictions, const std::vector<Id>& answers) {
  return std::find_first_of(predictions.begin(), predictions.end(), answers.begin(), answers.end()) -
         predictions.begin();
}

}  // namespace

RecallAtK evaluate_retrieval(const std::filesystem::path& annotation_file, const std::filesystem::path& prediction_file,
                             Retrieval retrieval) {
  const std::vector<Annotation> annotations = read_annotations(annotation_file, retrieval);
  const Predictions predictions = read_predictions(prediction_file, retrieval);
  require_all(annotations, predictions, retrieval);
  if (annotations.empty()) throw Error(annotation_file.string() + ": expected annotations, found no line");
  int64_t hits1 = 0, hits5 = 0, hits10 = 0;
  for (const Annotation& annotation : annotations) {
    const std::ptrdiff_t rank = rank_of(predictions.at(annotation.query), annotation.answers);
    hits1 += rank < 1;
    hits5 += rank < 5;
    hits10 += rank < 10;
  }
  const auto queries = static_cast<double>(annotations.size());
  return {static_cast<double>(hits1) / queries, static_cast<double>(hits5) / queries,
          static_cast<double>(hits10) / queries};
}

std::string result_json(const RecallAtK& recall) {
  std::string out = R"({"success": true)";
  const auto add = [&out](const char* key, double value) {
    out.append(key);
    append_float(out, value * 100);
  };
  add(R"(, "score": )", recall.mean());
  add(R"(, "scoreJson": {"score": )", recall.mean());
  add(R"(, "mean_recall": )", recall.mean());
  add(R"(, "r1": )", recall.r1);
  add(R"(, "r5": )", recall.r5);
  add(R"(, "r10": )", recall.r10);
  return out += "}}";
}

std::string failure_json(const std::string& message) {
  std::string text;
  append_string(text, message);
  return R"({"errorDetail": )" + text + R"(, "errorMsg": )" + text +
         R"(, "score": 0, "scoreJson": {}, "success": false})";
}

}  // namespace strobe::clip
