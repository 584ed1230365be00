// Subword vocabularies: a SentencePiece model with FlashAttentionNMT's special ids. The only place that includes
// SentencePiece is vocabulary.cpp (its protobuf symbols must not meet libtorch's).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::nmt {

constexpr int64_t kPadId = 0, kUnkId = 1, kBosId = 2, kEosId = 3;

struct VocabularyOptions {
  int64_t size = 32000;                    // pieces asked for; fewer may come out, with a warning
  std::string type = "bpe";                // "bpe" or "unigram"
  double character_coverage = 1.0;         // 0.9995 for Chinese
  std::string normalization = "nmt_nfkc";  // "identity" keeps the characters (the target side)
};

/// One language's pieces. Copies share the model.
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

 private:
  struct Model;
  std::shared_ptr<const Model> model_;
};

}  // namespace strobe::nmt
