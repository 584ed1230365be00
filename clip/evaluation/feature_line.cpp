#include "clip/evaluation/feature_line.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

namespace strobe::clip::internal {
namespace {

/// A cursor over a line of JSON.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  bool take(char c) {
    skip_space();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void require(char c) {
    if (!take(c)) throw std::runtime_error(std::string("expected '") + c + "', found " + here());
  }
  bool at_end() {
    skip_space();
    return text_.empty();
  }

  /// A string, number or word, as it is written.
  std::string_view scalar() {
    skip_space();
    std::size_t end = 0;
    if (text_.starts_with('"')) {
      for (end = 1; end < text_.size() && text_[end] != '"'; ++end) end += text_[end] == '\\';
      end = std::min(end + 1, text_.size());
    } else {
      end = std::min(text_.find_first_of(",:]} \t"), text_.size());
    }
    return cut(end);
  }

  /// A value of any kind.
  std::string_view value() {
    skip_space();
    const std::string_view start = text_;
    int depth = 0;
    do {
      skip_space();
      if (text_.empty()) throw std::runtime_error("the line ends too early");
      const char c = text_.front();
      if (c == '[' || c == '{') ++depth;
      if (c == ']' || c == '}') --depth;
      if (std::string_view("[]{},:").find(c) != std::string_view::npos) {
        cut(1);
      } else {
        scalar();
      }
    } while (depth > 0);
    return start.substr(0, start.size() - text_.size());
  }

  float number() {
    skip_space();
    double number = 0.0;
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), number);
    const auto result = static_cast<float>(number);
    if (error != std::errc() || !std::isfinite(result))
      throw std::runtime_error("expected a finite number, found " + here());
    text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
    return result;
  }

 private:
  void skip_space() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\t')) text_.remove_prefix(1);
  }
  std::string_view cut(std::size_t count) {
    const std::string_view taken = text_.substr(0, count);
    text_.remove_prefix(count);
    return taken;
  }
  std::string here() const {
    return text_.empty() ? "the end of the line" : "\"" + std::string(text_.substr(0, 20)) + "\"";
  }

  std::string_view text_;
};

void parse_numbers(Cursor& cursor, std::vector<float>& values) {
  cursor.require('[');
  if (cursor.take(']')) return;
  do {
    values.push_back(cursor.number());
  } while (cursor.take(','));
  cursor.require(']');
}

Id parse_id(std::string_view text, std::string_view key) {
  const nlohmann::json value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  std::optional<Id> id = id_of_json(value);
  if (!id) throw std::runtime_error(std::string(key) + ": expected an integer or a string, found " + std::string(text));
  return *std::move(id);
}

}  // namespace

Id parse_feature_line(std::string_view line, std::string_view id_key, std::vector<float>& values) {
  Cursor cursor(line);
  std::optional<Id> id;
  bool has_feature = false;
  cursor.require('{');
  if (!cursor.take('}')) {
    do {
      const std::string_view name = cursor.scalar();
      const std::string_view key = name.size() >= 2 ? name.substr(1, name.size() - 2) : name;
      cursor.require(':');
      if (key == id_key) {
        id = parse_id(cursor.value(), id_key);
      } else if (key == "feature" && !has_feature) {
        parse_numbers(cursor, values);
        has_feature = true;
      } else {
        cursor.value();
      }
    } while (cursor.take(','));
    cursor.require('}');
  }
  if (!cursor.at_end()) throw std::runtime_error("expected one JSON object");
  if (!id) throw std::runtime_error("has no " + std::string(id_key));
  if (!has_feature) throw std::runtime_error("has no feature");
  return *std::move(id);
}

}  // namespace strobe::clip::internal
