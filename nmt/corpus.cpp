#include "nmt/corpus.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "nmt/text.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

namespace fs = std::filesystem;

std::ifstream open(const fs::path& file) {
  if (fs::is_directory(file)) throw Error("read_pairs: \"" + file.string() + "\": expected a file, found a directory");
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error("read_pairs: \"" + file.string() + "\": cannot be opened: " + std::strerror(errno));
  return stream;
}

/// The lines of a file without their ends (LF or CRLF) and without a byte order mark.
class LineReader {
 public:
  explicit LineReader(const fs::path& file) : file_(file), stream_(open(file)) {}

  bool next(std::string& line) {
    if (!std::getline(stream_, line)) {
      if (stream_.bad()) throw Error("read_pairs: " + place() + ": cannot be read");
      return false;
    }
    ++number_;
    if (number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
    if (line.ends_with('\r')) line.pop_back();
    return true;
  }

  int64_t number() const { return number_; }
  std::string place() const { return file_.string() + ":" + std::to_string(number_); }

 private:
  fs::path file_;
  std::ifstream stream_;
  int64_t number_ = 0;
};

void skip(SkippedLines& skipped, int64_t SkippedLines::*reason, const std::string& place, const char* text) {
  ++(skipped.*reason);
  if (skipped.first.empty()) skipped.first = place + ": " + text;
}

std::string clean(std::string_view side) {
  std::string text(trim(side));
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

/// Takes the pair into the corpus or counts why not. `place` is a callable: its text is made only where it is wanted.
template <typename Place>
void add_pair(Corpus& corpus, std::string_view source, std::string_view target, const Place& place) {
  if (!is_valid_utf8(source) || !is_valid_utf8(target)) {
    return skip(corpus.skipped, &SkippedLines::invalid_utf8, place(), "not UTF-8");
  }
  SentencePair pair{clean(source), clean(target)};
  if (pair.source.empty() || pair.target.empty()) {
    return skip(corpus.skipped, &SkippedLines::empty_side, place(), "an empty side");
  }
  corpus.pairs.push_back(std::move(pair));
}

Corpus checked(Corpus corpus, const fs::path& file) {
  if (!corpus.pairs.empty()) return corpus;
  const std::string found = corpus.skipped.total() == 0 ? "an empty file" : "none (" + corpus.skipped.first + ")";
  throw Error("read_pairs: \"" + file.string() + "\": expected sentence pairs, found " + found);
}

Corpus read_tsv(const fs::path& file) {
  Corpus corpus;
  LineReader lines(file);
  const auto place = [&] { return lines.place(); };
  for (std::string line; lines.next(line);) {
    const std::string_view view = line;
    const std::size_t tab = view.find('\t');
    if (tab == std::string_view::npos) {
      skip(corpus.skipped, &SkippedLines::no_tab, lines.place(), "no tab");
      continue;
    }
    const std::size_t end = view.find('\t', tab + 1);
    add_pair(corpus, view.substr(0, tab), view.substr(tab + 1, end == view.npos ? view.npos : end - tab - 1), place);
  }
  return corpus;
}

/// Collects [[source, target, ...], ...] while the file is being parsed, so that only the pairs are held in memory.
class PairListHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit PairListHandler(const fs::path& file) : file_(file) {}

  Corpus take() { return std::move(corpus_); }

  bool null() override { return value(std::nullopt); }
  bool boolean(bool) override { return value(std::nullopt); }
  bool number_integer(number_integer_t) override { return value(std::nullopt); }
  bool number_unsigned(number_unsigned_t) override { return value(std::nullopt); }
  bool number_float(number_float_t, const string_t&) override { return value(std::nullopt); }
  bool binary(binary_t&) override { return value(std::nullopt); }
  bool string(string_t& text) override { return value(std::move(text)); }
  bool key(string_t&) override { return true; }

  bool start_array(std::size_t) override {
    if (depth_ == kInPair) sides_.emplace_back(std::nullopt);
    if (++depth_ == kInPair) sides_.clear();
    return true;
  }
  bool end_array() override {
    if (depth_-- == kInPair) end_pair();
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ == 0) fail("an object");
    value(std::nullopt);
    depth_ += kInPair + 1;  // whatever an object holds is deeper than any pair
    return true;
  }
  bool end_object() override {
    depth_ -= kInPair + 1;
    return true;
  }
  bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception& error) override {
    throw Error("read_pairs: \"" + file_.string() + "\": expected JSON, found an error at byte " +
                std::to_string(byte) + ": " + error.what());
  }

 private:
  static constexpr int kInList = 1, kInPair = 2;

  [[noreturn]] void fail(const std::string& found) const {
    throw Error("read_pairs: \"" + file_.string() + "\": expected a list of [source, target] pairs, found " + found);
  }
  bool value(std::optional<std::string> side) {
    if (depth_ == 0) fail("a single value");
    if (depth_ == kInList) skip_element();
    if (depth_ == kInPair) sides_.push_back(std::move(side));
    return true;
  }
  void end_pair() {
    if (sides_.size() < 2 || !sides_[0] || !sides_[1]) return skip_element();
    ++element_;
    add_pair(corpus_, *sides_[0], *sides_[1], [this] { return place(); });
  }
  void skip_element() {
    ++element_;
    skip(corpus_.skipped, &SkippedLines::no_tab, place(), "not a list of two strings");
  }
  std::string place() const { return file_.string() + ": pair " + std::to_string(element_); }

  fs::path file_;
  Corpus corpus_;
  int depth_ = 0;
  int64_t element_ = 0;
  std::vector<std::optional<std::string>> sides_;
};

Corpus read_json(const fs::path& file) {
  std::ifstream stream = open(file);
  PairListHandler handler(file);
  nlohmann::json::sax_parse(stream, &handler);
  return handler.take();
}

}  // namespace

Corpus read_pairs(const fs::path& file) {
  return checked(file.extension() == ".json" ? read_json(file) : read_tsv(file), file);
}

Corpus read_parallel(const fs::path& source, const fs::path& target) {
  Corpus corpus;
  LineReader sources(source), targets(target);
  const auto place = [&] { return sources.place(); };
  std::string source_line, target_line;
  while (true) {
    const bool more_source = sources.next(source_line), more_target = targets.next(target_line);
    if (more_source != more_target) {
      throw Error("read_parallel: expected as many lines in \"" + source.string() + "\" as in \"" + target.string() +
                  "\", found that \"" + (more_source ? target : source).string() + "\" ends after line " +
                  std::to_string(more_source ? targets.number() : sources.number()));
    }
    if (!more_source) break;
    add_pair(corpus, source_line, target_line, place);
  }
  return checked(std::move(corpus), source);
}

}  // namespace strobe::nmt
