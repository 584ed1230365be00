// The tokenizer of Chinese-CLIP's text towers: BERT's basic tokenizer and WordPiece (Devlin et al. 2018, section 3;
// Wu et al. 2016, arXiv 1609.08144, section 4.1), equal to cn_clip.clip.tokenize.
//
// Categories, case and decomposition come from ICU as of Unicode 14.0, whatever ICU's own version is: code points
// assigned later count as unassigned, as in Python 3.11's unicodedata.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::clip {

/// What training, evaluation and zero-shot classification do to a text before they tokenize it: lower case (Unicode's
/// full mapping, as Python's str.lower) and straight quotes for “ and ”. Throws strobe::Error where `text` is not
/// UTF-8.
std::string normalize_caption(std::string_view text);

/// Const use from several threads is safe.
class BertTokenizer {
 public:
  static constexpr int64_t kContextLength = 52;  // of the released models

  /// Reads a vocab.txt: a piece a line, its id the line's number from 0. Throws strobe::Error where it cannot be read
  /// or lacks [PAD], [UNK], [CLS] or [SEP].
  explicit BertTokenizer(const std::filesystem::path& vocabulary);
  ~BertTokenizer();
  BertTokenizer(BertTokenizer&&) noexcept;

  /// The pieces' ids, without [CLS] and [SEP]. A word of more than 200 code points, or one with a part that is no
  /// piece, is one [UNK]; names of special tokens in `text` are ordinary text. Throws strobe::Error where `text` is not
  /// UTF-8.
  std::vector<int64_t> encode(std::string_view text) const;

  /// int64 [texts.size(), context_length] on the CPU: [CLS], as many of the ids as fit, [SEP], then [PAD]. Throws
  /// strobe::Error where context_length is below 2. The texts are taken as they are: see normalize_caption.
  at::Tensor tokenize(const std::vector<std::string>& texts, int64_t context_length = kContextLength) const;

  int64_t vocabulary_size() const;  // ids are below it
  int64_t pad_id() const;
  int64_t unknown_id() const;
  int64_t start_id() const;  // [CLS]
  int64_t end_id() const;    // [SEP]

 private:
  struct Pieces;
  std::unique_ptr<const Pieces> pieces_;
};

}  // namespace strobe::clip
