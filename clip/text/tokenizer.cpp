#include "clip/text/tokenizer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <unordered_map>

#include "clip/text/piece_trie.h"
#include "clip/text/unicode.h"
#include "strobe/types.h"

namespace strobe::clip {
namespace {

constexpr std::size_t kLongestWord = 200;  // code points
constexpr int64_t kTextsPerTask = 64;

std::string read_file(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) throw Error("vocabulary " + file.string() + ": cannot be read");
  return bytes;
}

std::u32string_view strip(std::u32string_view line) {
  while (!line.empty() && is_space(line.front())) line.remove_prefix(1);
  while (!line.empty() && is_space(line.back())) line.remove_suffix(1);
  return line;
}

/// Lines as Python's text mode has them: they end with \n, \r or \r\n and with nothing else, for U+2028 is a piece.
std::vector<std::u32string_view> lines_of(std::u32string_view text) {
  std::vector<std::u32string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of(U"\r\n"), text.size());
    lines.push_back(strip(text.substr(0, end)));
    text.remove_prefix(end);
    if (!text.empty()) text.remove_prefix(text.starts_with(U"\r\n") ? 2 : 1);
  }
  return lines;
}

bool is_ascii(std::u32string_view word) {
  return std::all_of(word.begin(), word.end(), [](char32_t c) { return c < 0x80; });
}

}  // namespace

struct BertTokenizer::Pieces {
  PieceTrie trie;
  int64_t size = 0;
  int64_t pad = -1, unknown = -1, start = -1, end = -1;

  explicit Pieces(const std::filesystem::path& file) {
    const std::u32string text = decode_utf8(read_file(file), ("vocabulary " + file.string()).c_str());
    std::unordered_map<std::u32string_view, int64_t> ids;
    for (const std::u32string_view piece : lines_of(text)) {
      ids[piece] = size;
      if (piece.starts_with(U"##")) {
        trie.add(PieceTrie::kContinuation, piece.substr(2), size);
      } else {
        trie.add(PieceTrie::kWord, piece, size);
      }
      ++size;
    }
    const auto special = [&](std::u32string_view name) {
      const auto found = ids.find(name);
      if (found == ids.end()) throw Error("vocabulary " + file.string() + ": has no piece " + encode_utf8(name));
      return found->second;
    };
    pad = special(U"[PAD]");
    unknown = special(U"[UNK]");
    start = special(U"[CLS]");
    end = special(U"[SEP]");
  }

  void append_word(std::u32string_view word, std::vector<int64_t>& ids) const {
    if (word.size() > kLongestWord) {
      ids.push_back(unknown);
      return;
    }
    const std::size_t before = ids.size();
    PieceTrie::Start position = PieceTrie::kWord;
    while (!word.empty()) {
      const PieceTrie::Match match = trie.longest(position, word);
      if (match.length == 0) {
        ids.resize(before);
        ids.push_back(unknown);
        return;
      }
      ids.push_back(match.id);
      word.remove_prefix(match.length);
      position = PieceTrie::kContinuation;
    }
  }

  /// `token` holds no space: lower case, accents off, then a word of each punctuation mark and of what is between them.
  void append_token(std::u32string_view token, std::vector<int64_t>& ids) const {
    const std::u32string lower = to_lower(token);
    const std::u32string plain = is_ascii(lower) ? lower : strip_accents(lower);
    std::size_t start_of_word = 0;
    for (std::size_t i = 0; i < plain.size(); ++i) {
      if (role_of(plain[i]) != Role::kPunctuation) continue;
      append_word(std::u32string_view(plain).substr(start_of_word, i - start_of_word), ids);
      append_word(std::u32string_view(plain).substr(i, 1), ids);
      start_of_word = i + 1;
    }
    append_word(std::u32string_view(plain).substr(start_of_word), ids);
  }

  std::vector<int64_t> encode(std::string_view text) const {
    std::vector<int64_t> ids;
    std::u32string token;
    const auto finish = [&] {
      if (!token.empty()) append_token(token, ids);
      token.clear();
    };
    for (const char32_t c : decode_utf8(text, "tokenizer")) {
      switch (role_of(c)) {
        case Role::kDropped:
          break;
        case Role::kSpace:
          finish();
          break;
        case Role::kIdeograph:
          finish();
          append_token({&c, 1}, ids);
          break;
        default:
          token.push_back(c);
      }
    }
    finish();
    return ids;
  }
};

std::string normalize_caption(std::string_view text) {
  std::u32string lower = to_lower(decode_utf8(text, "caption"));
  for (char32_t& c : lower) {
    if (c == U'“' || c == U'”') c = U'"';
  }
  return encode_utf8(lower);
}

BertTokenizer::BertTokenizer(const std::filesystem::path& vocabulary)
    : pieces_(std::make_unique<const Pieces>(vocabulary)) {}
BertTokenizer::~BertTokenizer() = default;
BertTokenizer::BertTokenizer(BertTokenizer&&) noexcept = default;

std::vector<int64_t> BertTokenizer::encode(std::string_view text) const { return pieces_->encode(text); }

at::Tensor BertTokenizer::tokenize(const std::vector<std::string>& texts, int64_t context_length) const {
  if (context_length < 2) {
    throw Error("tokenize: context_length: expected at least 2, for [CLS] and [SEP], found " +
                std::to_string(context_length));
  }
  const auto count = static_cast<int64_t>(texts.size());
  at::Tensor tokens = at::full({count, context_length}, pieces_->pad, at::kLong);
  int64_t* data = tokens.mutable_data_ptr<int64_t>();
  at::parallel_for(0, count, kTextsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const std::vector<int64_t> ids = pieces_->encode(texts[static_cast<std::size_t>(i)]);
      int64_t* row = data + i * context_length;
      const int64_t kept = std::min<int64_t>(static_cast<int64_t>(ids.size()), context_length - 2);
      row[0] = pieces_->start;
      std::copy_n(ids.begin(), kept, row + 1);
      row[kept + 1] = pieces_->end;
    }
  });
  return tokens;
}

int64_t BertTokenizer::vocabulary_size() const { return pieces_->size; }
int64_t BertTokenizer::pad_id() const { return pieces_->pad; }
int64_t BertTokenizer::unknown_id() const { return pieces_->unknown; }
int64_t BertTokenizer::start_id() const { return pieces_->start; }
int64_t BertTokenizer::end_id() const { return pieces_->end; }

}  // namespace strobe::clip
