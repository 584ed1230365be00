// Vocabularies of subwords or words: a SentencePiece model with FlashAttentionNMT's special ids. The only place that
// includes SentencePiece is vocabulary.cpp (its protobuf symbols must not meet libtorch's).
//
// Subwords ("bpe", "unigram") encode and decode as SentencePiece does; a run of characters that the model does not know
// is one kUnkId. Words ("word") take text as it is: a token is what stands between spaces or tabs, whatever its length,
// each one id, kUnkId where the model does not know it; decoding puts single spaces between tokens and kUnknownText for
// kUnkId. (SentencePiece itself would make one unknown of several in a row.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::nmt {

constexpr int64_t kPadId = 0, kUnkId = 1, kBosId = 2, kEosId = 3;

constexpr std::string_view kUnknownText = "\xE2\x81\x87";  // U+2047, what SentencePiece decodes an unknown piece to

/// SentencePiece fits subwords on no longer sentences (its max_sentence_length), and says nothing of it.
constexpr std::size_t kMostBytesToFitOn = 4192;

struct VocabularyOptions {
  int64_t size = 32000;      // pieces asked for, the most frequent words of "word"; fewer may come out, with a warning
  std::string type = "bpe";  // "bpe", "unigram" or "word"
  double character_coverage = 1.0;         // 0.9995 for Chinese; 1 for "word"
  std::string normalization = "nmt_nfkc";  // "identity" keeps the characters (the target side, and "word")
};

/// The pieces of one language, or of two. Copies share the model.
class Vocabulary {
 public:
  /// Fits a model on the sentences. Throws strobe::Error with SentencePiece's reason.
  static Vocabulary train(const std::vector<std::string_view>& sentences, const VocabularyOptions& options);
  /// From a serialised SentencePiece model (a .model file's bytes). Throws strobe::Error naming `origin`.
  static Vocabulary from_bytes(std::string bytes, const std::string& origin);
  static Vocabulary load(const std::filesystem::path& file);

  int64_t size() const;
  std::vector<int64_t> encode(std::string_view text) const;   // no bos, no eos
  std::string decode(const std::vector<int64_t>& ids) const;  // pad, bos and eos are dropped
  std::string piece(int64_t id) const;
  const std::string& bytes() const;  // the .model file's bytes

  /// How the other one differs: "", or in words its size, the first piece that is another, or that the pieces are equal
  /// and what is done to text is not.
  std::string difference(const Vocabulary& other) const;

 private:
  std::string word_text(int64_t id) const;  // of a vocabulary of words

  struct Model;
  std::shared_ptr<const Model> model_;
};

}  // namespace strobe::nmt
