// Answers parity_test.py, which holds the answers against the programs that define them. A list of requests on stdin, a
// list of answers on stdout, both JSON:
//   {"what": "bleu", "tokenizer", "hypotheses", "references"}    -> {"score", "text", "signature"}
//   {"what": "score", "metric", "tokenizer", "hypotheses", "references"}   -> {"name", "score", "signature", "mean",
//   "half_width"}, the last two by resampling with {"samples", "seed"}
//   {"what": "compare", "metric", "tokenizer", "baseline", "hypotheses", "references", "samples", "seed"}   ->
//   {"baseline", "system"}: [mean, half width] each, {"p_value"}
//   {"what": "random", "seed", "bounds"}                         -> a number below each bound
//   {"what": "tokenize", "tokenizer", "sentences"}               -> the tokens of each sentence
//   {"what": "train", "type", "size", "coverage", "normalization", "sentences", "model"}   writes the file "model" ->
//   its pieces
//   {"what": "encode", "model", "sentences"}                     -> {"ids", "text"} of each sentence: encoded, and
//   decoded again
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "nmt/bootstrap.h"
#include "nmt/metric.h"
#include "nmt/pcg64.h"
#include "nmt/vocabulary.h"

namespace {

using nlohmann::json;
using namespace strobe::nmt;
using Texts = std::vector<std::string>;

json bleu(const json& request) {
  const Bleu result = corpus_bleu(request["hypotheses"].get<Texts>(), request["references"].get<Texts>(),
                                  bleu_tokenizer(request["tokenizer"].get<std::string>()));
  return {{"score", result.score}, {"text", result.text()}, {"signature", result.signature}};
}

std::unique_ptr<Metric> metric_of(const json& request) {
  return metric(request["metric"].get<std::string>(), bleu_tokenizer(request["tokenizer"].get<std::string>()));
}

SentenceCounts counts_of(const Metric& metric, const json& request, const char* hypotheses) {
  return sentence_counts(metric, request[hypotheses].get<Texts>(), request["references"].get<Texts>());
}

json score(const json& request) {
  const auto metric = metric_of(request);
  const SentenceCounts counts = counts_of(*metric, request, "hypotheses");
  const BootstrapOptions options{request["samples"], request["seed"]};
  const Interval interval = confidence(*metric, counts, options);
  return {{"name", metric->name()},
          {"score", metric->score(sum(counts))},
          {"signature", signature(*metric, resampling(options))},
          {"mean", interval.mean},
          {"half_width", interval.half_width}};
}

json comparison(const json& request) {
  const auto metric = metric_of(request);
  const Comparison found = compare(*metric, counts_of(*metric, request, "baseline"),
                                   counts_of(*metric, request, "hypotheses"), {request["samples"], request["seed"]});
  return {{"baseline", {found.baseline.mean, found.baseline.half_width}},
          {"system", {found.system.mean, found.system.half_width}},
          {"p_value", found.p_value}};
}

json random_numbers(const json& request) {
  Pcg64 random(request["seed"].get<uint64_t>());
  json result = json::array();
  for (const json& bound : request["bounds"]) result.push_back(random.below(bound.get<uint32_t>()));
  return result;
}

json tokens(const json& request) {
  const BleuTokenizer tokenizer = bleu_tokenizer(request["tokenizer"].get<std::string>());
  json result = json::array();
  for (const json& line : request["sentences"]) result.push_back(tokenize(line.get<std::string>(), tokenizer));
  return result;
}

json train(const json& request) {
  const Texts texts = request["sentences"].get<Texts>();
  VocabularyOptions options;
  options.type = request["type"];
  options.size = request["size"];
  options.character_coverage = request["coverage"];
  options.normalization = request["normalization"];
  const Vocabulary vocabulary = Vocabulary::train({texts.begin(), texts.end()}, options);
  std::ofstream(request["model"].get<std::string>(), std::ios::binary) << vocabulary.bytes();
  json pieces = json::array();
  for (int64_t id = 0; id < vocabulary.size(); ++id) pieces.push_back(vocabulary.piece(id));
  return pieces;
}

json encode(const json& request) {
  const Vocabulary vocabulary = Vocabulary::load(request["model"].get<std::string>());
  json result = json::array();
  for (const json& line : request["sentences"]) {
    const std::vector<int64_t> ids = vocabulary.encode(line.get<std::string>());
    result.push_back({{"ids", ids}, {"text", vocabulary.decode(ids)}});
  }
  return result;
}

json answer(const json& request) {
  const std::string what = request["what"];
  if (what == "bleu") return bleu(request);
  if (what == "score") return score(request);
  if (what == "compare") return comparison(request);
  if (what == "random") return random_numbers(request);
  if (what == "tokenize") return tokens(request);
  if (what == "train") return train(request);
  if (what == "encode") return encode(request);
  throw std::invalid_argument("unknown request: " + what);
}

}  // namespace

int main() {
  json answers = json::array();
  for (const json& request : json::parse(std::cin)) answers.push_back(answer(request));
  std::cout << answers;
}
