#include "nmt/vocabulary.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <unordered_map>

#include "nmt/sentencepiece_file.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

namespace spm = sentencepiece;

constexpr char kErrorsOnly[] = "2";            // SentencePiece's log level
constexpr char kAnyLength[] = "1000000000";    // bytes of a sentence; longer ones are not learnt from
constexpr char kWordStart[] = "\xE2\x96\x81";  // U+2581, what SentencePiece writes for a space

/// Hands the sentences to the trainer one by one; no copy of the corpus, no file.
class Sentences : public spm::SentenceIterator {
 public:
  Sentences(const std::vector<std::string_view>& sentences, bool words) : sentences_(sentences), words_(words) {
    fetch();
  }
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override {
    ++next_;
    fetch();
  }
  const std::string& value() const override { return value_; }
  spm::util::Status status() const override { return {}; }

 private:
  void fetch() {
    if (done()) return;
    value_ = sentences_[next_];
    // SentencePiece takes a tab for part of a word.
    if (words_) std::replace(value_.begin(), value_.end(), '\t', ' ');
  }

  const std::vector<std::string_view>& sentences_;
  bool words_;
  std::size_t next_ = 0;
  std::string value_;
};

void check(const VocabularyOptions& options) {
  if (options.type != "bpe" && options.type != "unigram" && options.type != "word") {
    throw Error("Vocabulary::train: type: expected \"bpe\", \"unigram\" or \"word\", found \"" + options.type + "\"");
  }
  if (options.type == "word" && (options.character_coverage != 1.0 || options.normalization != "identity")) {
    throw Error(
        "Vocabulary::train: type \"word\" takes text as it is: expected character_coverage 1 and normalization "
        "\"identity\", found " +
        std::to_string(options.character_coverage) + " and \"" + options.normalization + "\"");
  }
  if (options.size <= kEosId + 1) {
    throw Error("Vocabulary::train: size: expected more than the 4 special pieces, found " +
                std::to_string(options.size));
  }
  if (!(options.character_coverage >= 0.98 && options.character_coverage <= 1.0)) {
    throw Error("Vocabulary::train: character_coverage: expected 0.98 to 1, found " +
                std::to_string(options.character_coverage));
  }
}

std::unordered_map<std::string, std::string> trainer_arguments(const VocabularyOptions& options) {
  std::unordered_map<std::string, std::string> arguments = {
      {"model_type", options.type},
      {"vocab_size", std::to_string(options.size)},
      {"hard_vocab_limit", "false"},
      {"character_coverage", std::to_string(options.character_coverage)},
      {"normalization_rule_name", options.normalization},
      {"pad_id", std::to_string(kPadId)},
      {"unk_id", std::to_string(kUnkId)},
      {"bos_id", std::to_string(kBosId)},
      {"eos_id", std::to_string(kEosId)},
      {"minloglevel", kErrorsOnly}};
  if (options.type == "word") arguments["max_sentence_length"] = kAnyLength;
  return arguments;
}

/// Calls take(token) for what stands between spaces and tabs.
template <typename Take>
void for_each_token(std::string_view text, const Take& take) {
  constexpr std::string_view kBetween = " \t";
  for (std::size_t begin = text.find_first_not_of(kBetween); begin != text.npos;) {
    const std::size_t end = std::min(text.find_first_of(kBetween, begin), text.size());
    take(text.substr(begin, end - begin));
    begin = text.find_first_not_of(kBetween, end);
  }
}

}  // namespace

struct Vocabulary::Model {
  std::string bytes;
  bool words = false;
  spm::SentencePieceProcessor processor;
};

Vocabulary Vocabulary::train(const std::vector<std::string_view>& sentences, const VocabularyOptions& options) {
  check(options);
  Sentences iterator(sentences, options.type == "word");
  std::string bytes;
  const spm::util::Status status = spm::SentencePieceTrainer::Train(trainer_arguments(options), &iterator, &bytes);
  if (!status.ok()) {
    throw Error("Vocabulary::train: " + std::to_string(options.size) + " pieces of type " + options.type + " from " +
                std::to_string(sentences.size()) + " sentences: " + status.ToString());
  }
  return from_bytes(std::move(bytes), "the model just trained");
}

Vocabulary Vocabulary::from_bytes(std::string bytes, const std::string& origin) {
  const SentencePieceFile file = inspect_sentencepiece(bytes);
  if (!file.complete) throw Error("Vocabulary: " + origin + ": expected a SentencePiece model, found none or a part");
  auto model = std::make_shared<Model>();
  model->bytes = std::move(bytes);
  model->words = file.words;
  const spm::util::Status status = model->processor.LoadFromSerializedProto(model->bytes);
  if (!status.ok()) {
    throw Error("Vocabulary: " + origin +
                ": expected a SentencePiece model, found something else: " + status.ToString());
  }
  const auto& processor = model->processor;
  if (processor.pad_id() != kPadId || processor.unk_id() != kUnkId || processor.bos_id() != kBosId ||
      processor.eos_id() != kEosId) {
    throw Error("Vocabulary: " + origin + ": expected pad, unk, bos, eos = 0, 1, 2, 3, found " +
                std::to_string(processor.pad_id()) + ", " + std::to_string(processor.unk_id()) + ", " +
                std::to_string(processor.bos_id()) + ", " + std::to_string(processor.eos_id()));
  }
  Vocabulary vocabulary;
  vocabulary.model_ = std::move(model);
  return vocabulary;
}

Vocabulary Vocabulary::load(const std::filesystem::path& file) {
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  if (!stream || std::filesystem::is_directory(file)) {
    throw Error("Vocabulary: \"" + file.string() +
                "\": expected a SentencePiece model, found: " + (errno ? std::strerror(errno) : "a directory"));
  }
  return from_bytes(std::string(std::istreambuf_iterator<char>(stream), {}), file.string());
}

int64_t Vocabulary::size() const { return model_->processor.GetPieceSize(); }

std::vector<int64_t> Vocabulary::encode(std::string_view text) const {
  if (model_->words) {
    std::vector<int64_t> ids;
    for_each_token(text, [&](std::string_view token) {
      ids.push_back(model_->processor.PieceToId(kWordStart + std::string(token)));
    });
    return ids;
  }
  std::vector<int> ids;
  const spm::util::Status status = model_->processor.Encode(text, &ids);
  if (!status.ok()) throw Error("Vocabulary::encode: " + status.ToString());
  return {ids.begin(), ids.end()};
}

std::string Vocabulary::decode(const std::vector<int64_t>& ids) const {
  std::vector<int> words;
  words.reserve(ids.size());
  for (const int64_t id : ids) {
    if (id < 0 || id >= size()) {
      throw Error("Vocabulary::decode: ids: expected 0 to " + std::to_string(size() - 1) + ", found " +
                  std::to_string(id));
    }
    if (id != kPadId && id != kBosId && id != kEosId) words.push_back(static_cast<int>(id));
  }
  std::string text;
  if (model_->words) {
    for (const int word : words) {
      if (!text.empty()) text += ' ';
      text += word_text(word);
    }
    return text;
  }
  const spm::util::Status status = model_->processor.Decode(words, &text);
  if (!status.ok()) throw Error("Vocabulary::decode: " + status.ToString());
  return text;
}

std::string Vocabulary::piece(int64_t id) const {
  if (id < 0 || id >= size()) {
    throw Error("Vocabulary::piece: id: expected 0 to " + std::to_string(size() - 1) + ", found " + std::to_string(id));
  }
  return model_->processor.IdToPiece(static_cast<int>(id));
}

const std::string& Vocabulary::bytes() const { return model_->bytes; }

std::string Vocabulary::word_text(int64_t id) const {
  const std::string word = id == kUnkId ? std::string(kUnknownText) : piece(id);
  return word.starts_with(kWordStart) ? word.substr(sizeof(kWordStart) - 1) : word;
}

std::string Vocabulary::difference(const Vocabulary& other) const {
  if (bytes() == other.bytes()) return "";
  if (size() != other.size()) return std::to_string(size()) + " pieces, not " + std::to_string(other.size());
  for (int64_t id = 0; id < size(); ++id) {
    if (piece(id) == other.piece(id)) continue;
    return "piece " + std::to_string(id) + " is \"" + piece(id) + "\", not \"" + other.piece(id) + "\"";
  }
  return "the same pieces, but another normalisation, type or scores of pieces";
}

}  // namespace strobe::nmt
