#include "nmt/dataset.h"

#include <algorithm>
#include <future>
#include <thread>
#include <utility>

#include "strobe/types.h"

namespace strobe::nmt {
namespace {

namespace fs = std::filesystem;

constexpr char kHowToPrepare[] = "; `strobe nmt prepare` makes it";

}  // namespace

fs::path json_file(const fs::path& data, Part part) {
  constexpr const char* kNames[] = {"train.json", "dev.json", "test.json"};
  return data / "json" / kNames[static_cast<int>(part)];
}

Vocabularies load_vocabularies(const fs::path& data) {
  const fs::path folder = data / "tokenizer";
  for (const auto& [source, target] :
       {std::pair("source.model", "target.model"), std::pair("eng.model", "chn.model")}) {
    if (fs::exists(folder / source) && fs::exists(folder / target)) {
      return {Vocabulary::load(folder / source), Vocabulary::load(folder / target)};
    }
  }
  throw Error("load_vocabularies: data: expected " + (folder / "source.model").string() +
              " and target.model, found none" + kHowToPrepare);
}

std::vector<int64_t> encode_sentence(const Vocabulary& vocabulary, std::string_view text) {
  std::vector<int64_t> ids = vocabulary.encode(text);
  ids.insert(ids.begin(), kBosId);
  ids.push_back(kEosId);
  return ids;
}

std::vector<EncodedPair> encode_pairs(const std::vector<SentencePair>& texts, const Vocabularies& vocabularies) {
  std::vector<EncodedPair> pairs(texts.size());
  const auto encode_range = [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      pairs[i] = {encode_sentence(vocabularies.source, texts[i].source),
                  encode_sentence(vocabularies.target, texts[i].target)};
    }
  };
  const std::size_t threads = std::max(1u, std::thread::hardware_concurrency());
  const std::size_t share = texts.size() / threads + 1;
  std::vector<std::future<void>> tasks;
  for (std::size_t begin = 0; begin < texts.size(); begin += share) {
    tasks.push_back(std::async(std::launch::async, encode_range, begin, std::min(begin + share, texts.size())));
  }
  for (std::future<void>& task : tasks) task.get();
  return pairs;
}

Dataset load_dataset(const fs::path& data, Part part, const Vocabularies& vocabularies,
                     const std::optional<LengthLimits>& limits) {
  const fs::path file = json_file(data, part);
  if (!fs::exists(file)) throw Error("load_dataset: data: expected " + file.string() + ", found none" + kHowToPrepare);
  Corpus corpus = read_pairs(file);
  Dataset dataset;
  dataset.skipped = corpus.skipped;
  dataset.texts = std::move(corpus.pairs);
  dataset.pairs = encode_pairs(dataset.texts, vocabularies);
  if (limits) dataset.left_out = filter_lengths(dataset.texts, dataset.pairs, *limits);
  if (dataset.pairs.empty()) {
    throw Error("load_dataset: limits: expected to keep pairs of \"" + file.string() + "\", " +
                dataset.left_out.text());
  }
  return dataset;
}

}  // namespace strobe::nmt
