#include "nmt/vocabulary.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <unordered_map>

#include "strobe/types.h"

namespace strobe::nmt {
namespace {

namespace spm = sentencepiece;

constexpr char kErrorsOnly[] = "2";  // SentencePiece's log level

/// Hands the sentences to the trainer one by one; no copy of the corpus, no file.
class Sentences : public spm::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string_view>& sentences) : sentences_(sentences) { fetch(); }
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override {
    ++next_;
    fetch();
  }
  const std::string& value() const override { return value_; }
  spm::util::Status status() const override { return {}; }

 private:
  void fetch() {
    if (!done()) value_ = sentences_[next_];
  }

  const std::vector<std::string_view>& sentences_;
  std::size_t next_ = 0;
  std::string value_;
};

void check(const VocabularyOptions& options) {
  if (options.type != "bpe" && options.type != "unigram") {
    throw Error("Vocabulary::train: type: expected \"bpe\" or \"unigram\", found \"" + options.type + "\"");
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
  return {{"model_type", options.type},
          {"vocab_size", std::to_string(options.size)},
          {"hard_vocab_limit", "false"},
          {"character_coverage", std::to_string(options.character_coverage)},
          {"normalization_rule_name", options.normalization},
          {"pad_id", std::to_string(kPadId)},
          {"unk_id", std::to_string(kUnkId)},
          {"bos_id", std::to_string(kBosId)},
          {"eos_id", std::to_string(kEosId)},
          {"minloglevel", kErrorsOnly}};
}

/// Whether a serialised model holds the options it was trained with and its normaliser, which stand behind the pieces.
/// A file cut between two pieces is a well-formed message to protobuf, which would fill in defaults, another model type
/// among them.
bool is_complete(std::string_view bytes) {
  constexpr uint64_t kTrainerField = 2, kNormalizerField = 3, kLengthDelimited = 2;
  bool has_trainer = false, has_normalizer = false;
  const auto varint = [&bytes]() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes.front());
      bytes.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  while (!bytes.empty()) {
    const uint64_t tag = varint(), length = varint();
    if (tag % 8 != kLengthDelimited || length > bytes.size()) return false;
    has_trainer = has_trainer || tag / 8 == kTrainerField;
    has_normalizer = has_normalizer || tag / 8 == kNormalizerField;
    bytes.remove_prefix(length);
  }
  return has_trainer && has_normalizer;
}

}  // namespace

struct Vocabulary::Model {
  std::string bytes;
  spm::SentencePieceProcessor processor;
};

Vocabulary Vocabulary::train(const std::vector<std::string_view>& sentences, const VocabularyOptions& options) {
  check(options);
  Sentences iterator(sentences);
  std::string bytes;
  const spm::util::Status status = spm::SentencePieceTrainer::Train(trainer_arguments(options), &iterator, &bytes);
  if (!status.ok()) {
    throw Error("Vocabulary::train: " + std::to_string(options.size) + " pieces of type " + options.type + " from " +
                std::to_string(sentences.size()) + " sentences: " + status.ToString());
  }
  return from_bytes(std::move(bytes), "the model just trained");
}

Vocabulary Vocabulary::from_bytes(std::string bytes, const std::string& origin) {
  if (!is_complete(bytes))
    throw Error("Vocabulary: " + origin + ": expected a SentencePiece model, found none or a part");
  auto model = std::make_shared<Model>();
  model->bytes = std::move(bytes);
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

}  // namespace strobe::nmt
